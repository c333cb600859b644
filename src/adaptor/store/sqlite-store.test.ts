import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, it } from "node:test";
import { newOperationId } from "../../base/ids.ts";
import { SqliteStore } from "./sqlite-store.ts";

// What every store promises is in test/conformance/store.ts.
describe("SQLite store", () => {
  let dir: string;
  let path: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "store-"));
    path = join(dir, "store.sqlite");
  });
  afterEach(() => rm(dir, { recursive: true }));

  it("has one owner at a time, says so, and refuses a newer schema", async () => {
    const store = await SqliteStore.open(path);
    await assert.rejects(SqliteStore.open(path), { code: "failed_precondition", message: /another adaptor/ });
    await store[Symbol.asyncDispose]();
    const raw = new DatabaseSync(path);
    raw.exec("PRAGMA user_version = 99");
    raw.close();
    await assert.rejects(SqliteStore.open(path), { code: "failed_precondition", message: /newer adaptor \(schema 99/ });
    await assert.rejects(SqliteStore.open(join(path, "x")), (e: Error) => /ENOTDIR|EEXIST/.test(e.message));
  });

  it("brings a file of the first schema up to date, with what is in it", async () => {
    await (await SqliteStore.open(path))[Symbol.asyncDispose]();
    const id = newOperationId();
    const raw = new DatabaseSync(path);
    raw.exec("ALTER TABLE operations DROP COLUMN progress; ALTER TABLE operations DROP COLUMN cancel_reason");
    raw.exec("PRAGMA user_version = 1");
    const sql =
      "INSERT INTO operations VALUES (?, 'a', 's', 'running', 1, 1, 0, 0, '2026-01-01T00:00:00.000Z', NULL, '{}', NULL)";
    raw.prepare(sql).run(id);
    raw.close();
    await using store = await SqliteStore.open(path);
    assert.equal(await store.operations.requeueAbandoned(), 1);
    const begun = await store.operations.begin(id);
    assert.ok(begun);
    await store.operations.note(begun, "step");
    assert.deepEqual([(await store.operations.get(id))?.progress, begun.attempt], ["step", 2]);
  });
});
