import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ZeroProvider } from "../../../test/fakes/zero-provider.ts";
import { background } from "../../base/call.ts";
import { type InstanceId, newOperationId, newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { EmbeddedQueue } from "../operation/index.ts";
import { Events, NodeSessions, Recovery } from "../podvm/index.ts";
import { type SandboxRecord, SqliteStore } from "../store/index.ts";
import { LostInstances, OrphanInstances, StuckSandboxes } from "./index.ts";

const HOUR_MS = 3_600_000;

describe("reconcile loops", () => {
  let dir: string;
  let store: SqliteStore;
  let queue: EmbeddedQueue;
  let provider: ZeroProvider;
  let now: Date;
  const common = () => ({
    store,
    queue,
    provider,
    cluster: "test",
    log: silentLogger(),
    now: () => now,
    ...{ recovery: new Recovery({ store }), sessions: new NodeSessions({ store, now: () => now, rebootQuietMs: 0 }) },
    events: new Events({ log: silentLogger(), now: () => now }),
    ...{ intervalMs: 1000, massLossMs: 60_000, stuckDeleteMs: 60_000 },
  });

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "reconcile-"));
    now = new Date();
    store = await SqliteStore.open(join(dir, "store.sqlite"), () => now);
    const recovery = new Recovery({ store });
    await recovery.note({ ...(await recovery.state()), open: false, ended: "nothing is without an owner" });
    provider = new ZeroProvider();
    queue = new EmbeddedQueue({ store: store.operations, log: silentLogger(), now: () => now });
    for (const kind of ["start-vm", "stop-vm", "collect-instance"] as const) {
      queue.handle(kind, async () => undefined, { concurrency: 1, attempts: 1, priority: 1, timeoutMs: 1000 });
    }
  });
  afterEach(async () => {
    await store[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  async function newInstance(createdMsAgo = 0, createOperation = newOperationId()): Promise<InstanceId> {
    const created = new Date(now.getTime() - createdMsAgo).toISOString();
    const tags = { cluster: "test", owner: "kata-remote", createOperation, created } as const;
    const spec = {
      name: "podvm-a-1",
      tags,
      sandboxId: newSandboxId(),
      vcpus: 1,
      memoryMiB: 128,
      gpus: 0,
      userData: Buffer.from(""),
    };
    return (await provider.createInstance(spec, background())).id;
  }

  async function newRecord(change: Partial<SandboxRecord>): Promise<SandboxRecord> {
    return store.sandboxes.insert({
      ...{ id: newSandboxId(), phase: "prepared", nodeId: "node-1", createdAt: now.toISOString() },
      ...{
        pod: { namespace: "", name: "a", uid: "" },
        containerd: { namespace: "", id: "" },
        request: { vcpus: 0, memoryMiB: 0, gpus: 0 },
      },
      ...change,
    });
  }
  const submitted = async (): Promise<string[]> => (await store.operations.list()).map((o) => `${o.kind} ${o.subject}`);
  const intent = (createOperation = newOperationId()) => ({
    createOperation,
    name: "podvm-a-1",
    created: now.toISOString(),
  });

  describe("orphan instances", () => {
    const loop = () => new OrphanInstances({ ...common(), graceMs: 60_000 });

    it("are removed when two passes saw them older than the grace period", async () => {
      const orphans = loop();
      const id = await newInstance();
      await orphans.reconcile(background());
      await orphans.reconcile(background());
      assert.deepEqual(await submitted(), [], "too young");
      now = new Date(now.getTime() + 61_000);
      assert.equal((await orphans.reconcile(background())).repaired, 0, "seen once");
      assert.equal((await orphans.reconcile(background())).repaired, 1);
      assert.deepEqual(await submitted(), [`collect-instance ${id}`]);
    });

    it("are not those that a record names, or whose create call it has sent", async () => {
      const orphans = loop();
      const token = newOperationId();
      await newInstance(0, token);
      await newRecord({ phase: "creating", intent: intent(token) });
      await newRecord({ phase: "ready", instance: { id: await newInstance(), addresses: [], port: 1 } });
      now = new Date(now.getTime() + HOUR_MS);
      for (let pass = 0; pass < 3; pass++) await orphans.reconcile(background());
      assert.deepEqual(await submitted(), []);
    });

    it("are those of a sandbox that is gone", async () => {
      const orphans = loop();
      const id = await newInstance();
      await newRecord({ phase: "gone", instance: { id, addresses: [], port: 1 } });
      now = new Date(now.getTime() + HOUR_MS);
      for (let pass = 0; pass < 2; pass++) await orphans.reconcile(background());
      assert.deepEqual(await submitted(), [`collect-instance ${id}`]);
    });

    it("are never those that are older than the store: an emptied store must not delete every VM", async () => {
      const orphans = loop();
      await newInstance(1000);
      now = new Date(now.getTime() + HOUR_MS);
      for (let pass = 0; pass < 3; pass++) await orphans.reconcile(background());
      assert.deepEqual(await submitted(), []);
    });

    it("are not looked for in a listing that failed", async () => {
      const orphans = loop();
      await newInstance();
      now = new Date(now.getTime() + HOUR_MS);
      await orphans.reconcile(background());
      provider.listInstances = () => Promise.reject(new Error("throttled"));
      await assert.rejects(orphans.reconcile(background()), /throttled/);
      assert.deepEqual(await submitted(), []);
    });
  });

  describe("stuck sandboxes", () => {
    const loop = () => new StuckSandboxes({ ...common(), retentionMs: HOUR_MS, lostGraceMs: 60_000 });

    it("get the operation that takes them on, once", async () => {
      const creating = await newRecord({ phase: "creating", intent: intent() });
      const stopping = await newRecord({ phase: "stopping", intent: intent() });
      const failed = await newRecord({ phase: "failed", intent: intent() });
      for (const phase of ["prepared", "booting", "ready", "gone"] as const) await newRecord({ phase });
      const stuck = loop();
      await stuck.reconcile(background());
      await stuck.reconcile(background());
      const wanted = [`start-vm ${creating.id}`, `stop-vm ${stopping.id}`, `stop-vm ${failed.id}`];
      assert.deepEqual((await submitted()).sort(), wanted.sort());
    });

    it("are stopped when they are lost and their node does nothing about it", async () => {
      const lost = await newRecord({ phase: "lost", intent: intent() });
      const stuck = loop();
      await stuck.reconcile(background());
      assert.equal((await store.sandboxes.get(lost.id))?.phase, "lost");
      now = new Date(now.getTime() + 61_000);
      await stuck.reconcile(background());
      await stuck.reconcile(background());
      assert.deepEqual(await submitted(), [`stop-vm ${lost.id}`]);
    });

    it("are forgotten after the retention time when they are over, and so are operations", async () => {
      const gone = await newRecord({ phase: "gone" });
      const undone = await newRecord({ phase: "failed" });
      const undoing = await newRecord({ phase: "failed", intent: intent() });
      const { id } = await queue.submit({ kind: "start-vm", subject: "x", input: {} });
      await store.operations.cancelQueued(id, "x");
      now = new Date(now.getTime() + HOUR_MS + 1000);
      await loop().reconcile(background());
      const left = (await store.sandboxes.list()).map((r) => r.id);
      assert.deepEqual(left, [undoing.id]);
      assert.ok(![gone.id, undone.id].some((r) => left.includes(r)));
      assert.deepEqual(await submitted(), [`stop-vm ${undoing.id}`]);
    });
  });

  describe("lost instances", () => {
    it("are those that failed at once, and those missing twice", async () => {
      const [failed, missing, fine] = [await newInstance(), await newInstance(), await newInstance()];
      const records: SandboxRecord[] = [];
      for (const id of [failed, missing, fine]) {
        records.push(await newRecord({ phase: "ready", instance: { id, addresses: ["127.0.0.1"], port: 1 } }));
      }
      const phases = async () => Promise.all(records.map(async (r) => (await store.sandboxes.get(r.id))?.phase));
      const lost = new LostInstances(common());
      await lost.reconcile(background());
      assert.deepEqual(await phases(), ["ready", "ready", "ready"]);
      provider.fail(failed, "host failure");
      await provider.deleteInstance(missing);
      await lost.reconcile(background());
      assert.deepEqual(await phases(), ["lost", "ready", "ready"]);
      await lost.reconcile(background());
      assert.deepEqual(await phases(), ["lost", "lost", "ready"]);
    });

    it("are looked for more often where a listing costs one request, and living ones are shown to whoever compares", async () => {
      const id = await newInstance();
      const record = await newRecord({ phase: "ready", instance: { id, addresses: ["127.0.0.1"], port: 1 } });
      const seen: string[] = [];
      const onListed = (pairs: readonly (readonly [SandboxRecord, { readonly id: InstanceId }])[]): void =>
        void seen.push(...pairs.map(([r, i]) => `${r.id} ${i.id}`));
      const lost = new LostInstances({ ...common(), intervalMs: 45_000, fewIntervalMs: 10_000, onListed });
      assert.equal((await lost.reconcile(background())).againMs, 10_000);
      assert.deepEqual(seen, [`${record.id} ${id}`]);
      await Promise.all(Array.from({ length: 200 }, () => newInstance()));
      assert.equal((await lost.reconcile(background())).againMs, undefined, "201 instances");
    });
  });
});
