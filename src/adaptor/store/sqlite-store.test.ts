import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, it } from "node:test";
import { newOperationId, newSandboxId } from "../../base/ids.ts";
import type { SandboxRecord } from "./sandbox-record.ts";
import { SqliteStore } from "./sqlite-store.ts";

/** The rest of a record as the skeleton wrote it. */
const OLD = {
  pod: { namespace: "d", name: "p", uid: "u" },
  containerd: { namespace: "k8s.io", id: "c" },
  request: { vcpus: 1, memoryMiB: 128, gpus: 0 },
  createdAt: "2026-01-01T00:00:00.000Z",
  phaseSince: "2026-01-01T00:00:00.000Z",
};

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
    raw.exec("PRAGMA user_version = 99; UPDATE meta SET value = '98' WHERE key = 'readable_from'");
    raw.close();
    await assert.rejects(SqliteStore.open(path), { code: "failed_precondition", message: /newer adaptor \(schema 99/ });
    await assert.rejects(SqliteStore.open(join(path, "x")), (e: Error) => /ENOTDIR|EEXIST/.test(e.message));
  });

  it("works with a newer schema that says it only adds, and leaves its version", async () => {
    await (await SqliteStore.open(path))[Symbol.asyncDispose]();
    const raw = new DatabaseSync(path);
    raw.exec("ALTER TABLE operations ADD COLUMN later TEXT; PRAGMA user_version = 99");
    raw.close();
    const store = await SqliteStore.open(path);
    await store.operations.submit({ id: newOperationId(), kind: "a", subject: "s", priority: 1, input: {} });
    await store[Symbol.asyncDispose]();
    const after = new DatabaseSync(path);
    assert.deepEqual({ ...after.prepare("PRAGMA user_version").get() }, { user_version: 99 });
    after.close();
  });

  it("reads a record that the version before wrote, and changes it", async () => {
    const store = await SqliteStore.open(path);
    const id = newSandboxId();
    await store[Symbol.asyncDispose]();
    const old = { id, revision: 7, phase: "booting", nodeId: "n", ...OLD };
    const raw = new DatabaseSync(path);
    raw.prepare("INSERT INTO sandboxes VALUES (?, 7, 'booting', 'n', ?)").run(id, JSON.stringify(old));
    const tooNew = { ...old, id: "x", form: 99 };
    raw.prepare("INSERT INTO sandboxes VALUES ('x', 7, 'booting', 'm', ?)").run(JSON.stringify(tooNew));
    raw.close();
    await using again = await SqliteStore.open(path);
    const [record] = await again.sandboxes.list({ nodeId: "n" });
    assert.deepEqual(record, old);
    const { form, ...changed } = await again.sandboxes.update(record as SandboxRecord, { stopReason: "x" });
    assert.deepEqual([form, changed], [2, { ...old, revision: 8, stopReason: "x" }]);
    await assert.rejects(again.sandboxes.list({ nodeId: "m" }), { message: /form 99, this adaptor reads up to 3/ });
  });

  describe("that came back", () => {
    const submit = (store: SqliteStore) =>
      store.operations.submit({ id: newOperationId(), kind: "a", subject: newOperationId(), priority: 1, input: {} });

    it("empty has a new epoch, and leases that are higher than before", async () => {
      const store = await SqliteStore.open(path);
      const first = store.epoch;
      await store.operations.begin((await submit(store)).id);
      await store[Symbol.asyncDispose]();
      for (const end of ["", "-wal"]) await rm(`${path}${end}`, { force: true });
      await using again = await SqliteStore.open(path);
      assert.notEqual(again.epoch.id, first.id);
      assert.ok(again.epoch.createdAt >= first.createdAt);
      assert.ok(((await again.operations.begin((await submit(again)).id))?.lease ?? 0) > 1000);
    });

    it("older than it was has a new epoch; one that was only killed keeps it", async () => {
      const store = await SqliteStore.open(path);
      const first = store.epoch;
      await submit(store);
      await store[Symbol.asyncDispose]();
      const older = join(dir, "older.sqlite");
      await cp(path, older);
      const next = await SqliteStore.open(path);
      assert.deepEqual(next.epoch, first);
      await submit(next);
      await next[Symbol.asyncDispose]();
      await cp(older, path);
      const set = await SqliteStore.open(path);
      assert.notEqual(set.epoch.id, first.id);
      const second = set.epoch;
      await set[Symbol.asyncDispose]();
      await cp(older, path); // a copy from before the epoch that is known by now
      await using third = await SqliteStore.open(path);
      assert.ok(third.epoch.id !== first.id && third.epoch.id !== second.id);
    });
  });

  it("brings a file of the first schema up to date, with what is in it", async () => {
    await (await SqliteStore.open(path))[Symbol.asyncDispose]();
    const id = newOperationId();
    const raw = new DatabaseSync(path);
    raw.exec("ALTER TABLE operations DROP COLUMN progress; ALTER TABLE operations DROP COLUMN cancel_reason");
    raw.exec("DROP TABLE facts; PRAGMA user_version = 1");
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
