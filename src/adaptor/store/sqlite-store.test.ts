import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, it } from "node:test";
import { newOperationId, newSandboxId } from "../../base/ids.ts";
import type { SandboxRecord } from "./sandbox-record.ts";
import { SqliteStore } from "./sqlite-store.ts";

describe("SQLite store", () => {
  let dir: string;
  let path: string;
  let store: SqliteStore;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "store-"));
    path = join(dir, "store.sqlite");
    store = await SqliteStore.open(path);
  });
  afterEach(async () => {
    await store[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  async function reopen(): Promise<void> {
    await store[Symbol.asyncDispose]();
    store = await SqliteStore.open(path);
  }

  function newRecord(nodeId = "node-1"): Omit<SandboxRecord, "revision" | "phaseSince"> {
    return {
      ...{ id: newSandboxId(), phase: "prepared", nodeId, createdAt: new Date().toISOString() },
      pod: { namespace: "default", name: "web", uid: "u" },
      containerd: { namespace: "k8s.io", id: "c" },
      request: { vcpus: 1, memoryMiB: 256, gpus: 0 },
    };
  }

  describe("sandbox records", () => {
    it("survive a restart, and so does the epoch", async () => {
      const inserted = await store.sandboxes.insert(newRecord());
      const updated = await store.sandboxes.update(inserted, { phase: "creating", stopReason: "x" });
      const cleared = await store.sandboxes.update(updated, { stopReason: undefined });
      const epoch = store.epoch;
      await reopen();
      assert.deepEqual(await store.sandboxes.get(inserted.id), cleared);
      assert.deepEqual(store.epoch, epoch);
      assert.equal(cleared.revision, 3);
      assert.equal("stopReason" in cleared, false);
    });

    it("are changed by whoever comes first; the other has to look again", async () => {
      const record = await store.sandboxes.insert(newRecord());
      const outcomes = await Promise.allSettled([
        store.sandboxes.update(record, { phase: "creating" }),
        store.sandboxes.update(record, { phase: "stopping" }),
        store.sandboxes.remove(record),
      ]);
      assert.deepEqual(
        outcomes.map((o) => o.status),
        ["fulfilled", "rejected", "rejected"],
      );
      assert.deepEqual(
        outcomes.slice(1).map((o) => o.status === "rejected" && (o.reason as { code: string }).code),
        ["aborted", "aborted"],
      );
      assert.equal((await store.sandboxes.get(record.id))?.phase, "creating");
      await assert.rejects(store.sandboxes.insert(record), { code: "already_exists" });
    });

    it("are found by phase and node, and told to who watches", async () => {
      const seen: string[] = [];
      const unwatch = store.sandboxes.watch((r) => seen.push(`${r.nodeId} ${r.phase}`));
      const one = await store.sandboxes.insert(newRecord("node-1"));
      await store.sandboxes.insert(newRecord("node-2"));
      await store.sandboxes.update(one, { phase: "ready" });
      unwatch();
      await store.sandboxes.insert(newRecord("node-1"));
      assert.deepEqual(seen, ["node-1 prepared", "node-2 prepared", "node-1 ready"]);
      assert.deepEqual(
        (await store.sandboxes.list({ nodeId: "node-1", phases: ["ready", "lost"] })).map((r) => r.id),
        [one.id],
      );
      assert.equal(await store.sandboxes.count(["prepared"]), 2);
    });
  });

  describe("operations", () => {
    const submit = (kind: string, subject: string, priority = 1) =>
      store.operations.submit({ id: newOperationId(), kind, subject, priority, input: { reason: "r" } });
    const claim = (kinds: Record<string, number>, busy: string[] = []) =>
      store.operations.claim({ room: new Map(Object.entries(kinds)), busy: new Set(busy) });

    it("are one per kind and subject while they are active", async () => {
      const [one, two] = await Promise.all([submit("a", "s"), submit("a", "s")]);
      assert.equal(one.id, two.id);
      assert.notEqual((await submit("b", "s")).id, one.id);
      const [running] = await claim({ a: 1 });
      assert.equal((await submit("a", "s")).id, one.id);
      await store.operations.settle(one.id, running?.lease ?? 0, { state: "done" });
      assert.notEqual((await submit("a", "s")).id, one.id);
    });

    it("are claimed by priority, with room, when due, and one per subject", async () => {
      await submit("low", "1", 10);
      await submit("high", "1", 0);
      for (const subject of ["2", "3", "4"]) await submit("low", subject, 10);
      const claimed = await claim({ high: 5, low: 2 }, ["2"]);
      assert.deepEqual(claimed.map((o) => `${o.kind}/${o.subject}`).toSorted(), ["high/1", "low/3", "low/4"]);
      assert.equal(new Set(claimed.map((o) => o.lease)).size, 3);
      const [high] = claimed;
      const wakeAt = Date.now() + 60_000;
      const again = await store.operations.settle(high?.id ?? newOperationId(), high?.lease ?? 0, {
        state: "queued",
        wakeAt,
      });
      assert.equal(again.attempt, 1);
      assert.deepEqual(await claim({ high: 5 }), []);
      assert.equal(await store.operations.nextWake(["high"]), wakeAt);
    });

    it("cannot be settled by a worker whose lease is over", async () => {
      await submit("a", "s");
      const [stale] = await claim({ a: 1 });
      assert.ok(stale);
      assert.equal(await store.operations.requeueRunning(), 1);
      await assert.rejects(store.operations.settle(stale.id, stale.lease, { state: "done" }), { code: "aborted" });
      const [fresh] = await claim({ a: 1 });
      assert.ok(fresh && fresh.lease > stale.lease && fresh.attempt === 2);
      await assert.rejects(store.operations.settle(stale.id, stale.lease, { state: "done" }), { code: "aborted" });
      assert.equal((await store.operations.settle(fresh.id, fresh.lease, { state: "done" })).state, "done");
    });

    it("keep their leases growing over restarts, and can be cancelled and forgotten", async () => {
      await submit("a", "s");
      const [first] = await claim({ a: 1 });
      await reopen();
      await store.operations.requeueRunning();
      const [second] = await claim({ a: 1 });
      assert.ok(first && second && second.lease > first.lease);
      assert.equal(await store.operations.cancelQueued(second.id, "x"), false);
      const queued = await submit("a", "t");
      assert.equal(await store.operations.cancelQueued(queued.id, "not wanted"), true);
      assert.equal((await store.operations.get(queued.id))?.fault?.message, "not wanted");
      assert.equal(await store.operations.prune(new Date(Date.now() + 1000)), 1);
      assert.deepEqual(
        (await store.operations.list()).map((o) => o.id),
        [second.id],
      );
    });
  });

  it("undoes a write that fails alone, and commits the others of its turn", async () => {
    const record = await store.sandboxes.insert(newRecord());
    const other = newRecord();
    const [again, inserted, op] = await Promise.allSettled([
      store.sandboxes.insert(record),
      store.sandboxes.insert(other),
      store.operations.submit({ id: newOperationId(), kind: "a", subject: other.id, priority: 1, input: {} }),
    ]);
    assert.deepEqual([again.status, inserted.status, op.status], ["rejected", "fulfilled", "fulfilled"]);
    await reopen();
    assert.equal((await store.sandboxes.get(other.id))?.id, other.id);
  });

  it("has one owner at a time, says so, and refuses a newer schema", async () => {
    await assert.rejects(SqliteStore.open(path), { code: "failed_precondition", message: /another adaptor/ });
    await store[Symbol.asyncDispose]();
    const raw = new DatabaseSync(path);
    raw.exec("PRAGMA user_version = 99");
    raw.close();
    await assert.rejects(SqliteStore.open(path), { code: "failed_precondition", message: /newer adaptor \(schema 99/ });
    await rm(path);
    store = await SqliteStore.open(path);
    await assert.rejects(SqliteStore.open(join(dir, "store.sqlite", "x")), (e: Error) =>
      /ENOTDIR|EEXIST/.test(e.message),
    );
  });

  it("remembers the boot of each node", async () => {
    assert.equal(await store.nodes.report("n", "boot-1"), undefined);
    assert.equal(await store.nodes.report("n", "boot-2"), "boot-1");
    await reopen();
    assert.equal(await store.nodes.report("n", "boot-2"), "boot-2");
  });
});
