import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { AdaptorStore, OperationRecord, SandboxRecord } from "../../src/adaptor/store/index.ts";
import { newOperationId, newSandboxId, type OperationId, type SandboxId } from "../../src/base/ids.ts";

/** A store under test, with what a test does behind its back. */
export interface StoreUnderTest extends AsyncDisposable {
  /** The one that is open; another object after reopen(). */
  readonly store: AdaptorStore;
  /** Closes it as a process that ends does, and opens it again. */
  reopen(): Promise<void>;
  /** The process dies without a word, and a new one opens the store. */
  crash(): Promise<void>;
}

export function newRecord(nodeId = "node-1"): Omit<SandboxRecord, "revision" | "phaseSince"> {
  return {
    ...{ id: newSandboxId(), phase: "prepared", nodeId, createdAt: new Date().toISOString() },
    pod: { namespace: "default", name: "web", uid: "u" },
    containerd: { namespace: "k8s.io", id: "c" },
    request: { vcpus: 1, memoryMiB: 256, gpus: 0 },
  };
}

/** What every AdaptorStore promises. */
export function storeConformance(name: string, create: () => Promise<StoreUnderTest>, skip: string | false = false) {
  describe(`store ${name}`, { timeout: 60_000, skip }, () => {
    let tested: StoreUnderTest;
    beforeEach(async () => {
      tested = await create();
    });
    afterEach(() => tested[Symbol.asyncDispose]());
    const sandboxes = () => tested.store.sandboxes;
    const operations = () => tested.store.operations;
    const codes = (outcomes: readonly PromiseSettledResult<unknown>[]) =>
      outcomes.map((o) => (o.status === "fulfilled" ? "done" : (o.reason as { code: string }).code));

    describe("sandbox records", () => {
      it("survive a restart and a crash, and so does the epoch", async () => {
        const inserted = await sandboxes().insert(newRecord());
        const updated = await sandboxes().update(inserted, { phase: "creating", stopReason: 'a "reason" — ünïcode\n' });
        const cleared = await sandboxes().update(updated, { stopReason: undefined });
        const epoch = tested.store.epoch;
        await tested.reopen();
        assert.deepEqual(await sandboxes().get(inserted.id), cleared);
        assert.deepEqual(tested.store.epoch, epoch);
        const again = await sandboxes().update(cleared, { phase: "booting" });
        await tested.crash();
        assert.deepEqual(await sandboxes().get(inserted.id), again);
        assert.deepEqual(tested.store.epoch, epoch);
        assert.equal(again.revision, 4);
        assert.equal("stopReason" in cleared, false);
      });

      it("are changed by whoever comes first; the other has to look again", async () => {
        const record = await sandboxes().insert(newRecord());
        const outcomes = await Promise.allSettled([
          sandboxes().update(record, { phase: "creating" }),
          sandboxes().update(record, { phase: "stopping" }),
          sandboxes().remove(record),
        ]);
        assert.deepEqual(codes(outcomes), ["done", "aborted", "aborted"]);
        assert.equal((await sandboxes().get(record.id))?.phase, "creating");
        await assert.rejects(sandboxes().insert(record), { code: "already_exists" });
        await assert.rejects(sandboxes().update({ ...record, id: newSandboxId() }, {}), { code: "aborted" });
      });

      it("are found by phase and node, and told to who watches", async () => {
        const seen: string[] = [];
        const unwatch = sandboxes().watch((r) => seen.push(`${r.nodeId} ${r.phase}`));
        const one = await sandboxes().insert(newRecord("node-1"));
        const two = await sandboxes().insert(newRecord("node-2"));
        const ready = await sandboxes().update(one, { phase: "ready" });
        unwatch();
        await sandboxes().insert(newRecord("node-1"));
        assert.deepEqual(seen, ["node-1 prepared", "node-2 prepared", "node-1 ready"]);
        const ids = (records: readonly SandboxRecord[]): SandboxId[] => records.map((r) => r.id);
        assert.deepEqual(ids(await sandboxes().list({ nodeId: "node-1", phases: ["ready", "lost"] })), [one.id]);
        assert.deepEqual(ids(await sandboxes().list({ nodeId: "node-2" })), [two.id]);
        assert.deepEqual(ids(await sandboxes().list({ phases: ["ready"] })), [one.id]);
        assert.deepEqual(await sandboxes().list({ phases: [] }), []);
        assert.equal((await sandboxes().list()).length, 3);
        assert.equal(await sandboxes().count(["prepared"]), 2);
        assert.equal(await sandboxes().count(["prepared", "ready", "gone"]), 3);
        await sandboxes().remove(ready);
        assert.equal(await sandboxes().get(one.id), undefined);
        assert.equal(await sandboxes().count(["ready"]), 0);
        assert.deepEqual(ids(await sandboxes().list({ nodeId: "node-1", phases: ["ready"] })), []);
      });

      it("come in thousands", async () => {
        const made = await Promise.all(
          Array.from({ length: 2500 }, (_, i) => sandboxes().insert(newRecord(`n${i % 3}`))),
        );
        assert.equal((await sandboxes().list()).length, made.length);
        assert.equal((await sandboxes().list({ phases: ["prepared"] })).length, made.length);
        assert.equal((await sandboxes().list({ nodeId: "n1" })).length, 833);
        assert.equal(await sandboxes().count(["prepared"]), made.length);
      });
    });

    const submit = (kind: string, subject: string, priority = 1, id = newOperationId()) =>
      operations().submit({ id, kind, subject, priority, input: { reason: "r" } });
    const claim = (kinds: Record<string, number>) => operations().claim({ room: new Map(Object.entries(kinds)) });
    const held = ({ id, lease }: OperationRecord) => ({ id, lease });

    describe("operations", () => {
      it("are one per kind and subject while they are active", async () => {
        const [one, two] = await Promise.all([submit("a", "s"), submit("a", "s")]);
        assert.equal(one.id, two.id);
        assert.deepEqual([one.state, one.attempt, one.lease, one.input], ["queued", 0, 0, { reason: "r" }]);
        assert.notEqual((await submit("b", "s")).id, one.id);
        const running = await operations().begin(one.id);
        assert.equal((await submit("a", "s")).id, one.id);
        const done = await operations().settle(one.id, running?.lease ?? 0, { state: "done" });
        assert.ok(done.finishedAt !== undefined && Date.parse(done.finishedAt) >= Date.parse(done.submittedAt));
        assert.notEqual((await submit("a", "s")).id, one.id);
        assert.equal((await submit("a", "s", 1, one.id)).id === one.id, false, "the newer one is active");
      });

      it("are claimed by priority, with room, when due, and one per subject", async () => {
        await submit("low", "1", 10);
        await submit("high", "1", 0);
        for (const subject of ["2", "3", "4"]) await submit("low", subject, 10);
        const claimed = await claim({ high: 5, low: 2 });
        const [high, ...low] = claimed;
        assert.equal(`${high?.kind}/${high?.subject}`, "high/1");
        assert.deepEqual(new Set(low.map((o) => o.subject)).size, 2);
        assert.ok(low.every((o) => o.kind === "low" && o.subject !== "1"));
        assert.equal(new Set(claimed.map((o) => o.lease)).size, 3);
        const wakeAt = Date.now() + 60_000;
        const again = await operations().settle(high?.id as OperationId, high?.lease ?? 0, { state: "queued", wakeAt });
        assert.deepEqual([again.attempt, again.wakeAt, again.state], [1, wakeAt, "queued"]);
        assert.deepEqual(await claim({ high: 5 }), []);
        assert.equal(await operations().begin(again.id), undefined, "it is not due");
        assert.equal(await operations().nextWake(["high"]), wakeAt);
        assert.equal(await operations().nextWake(["none"]), undefined);
      });

      it("of a busy subject wait, and the urgent one goes first though the other was here before", async () => {
        const low = await submit("low", "s", 10);
        const high = await submit("high", "s", 0);
        assert.equal(await operations().begin(low.id), undefined);
        assert.deepEqual(await claim({ low: 1 }), []);
        const first = await operations().begin(high.id);
        assert.equal(first?.state, "running");
        assert.equal(await operations().begin(low.id), undefined);
        await operations().settle(high.id, first?.lease ?? 0, { state: "done" });
        assert.equal((await operations().begin(low.id))?.state, "running");
      });

      it("submitted together with a change of a record are there with it, also after a crash", async () => {
        const record = await sandboxes().insert(newRecord());
        await Promise.all([sandboxes().update(record, { phase: "creating" }), submit("a", record.id)]);
        await tested.crash();
        assert.equal((await sandboxes().get(record.id))?.phase, "creating");
        assert.equal((await operations().list({ subject: record.id })).length, 1);
      });

      it("cannot be touched by a worker whose lease is over", async () => {
        await submit("a", "s");
        const [stale] = await claim({ a: 1 });
        assert.ok(stale);
        assert.equal(await operations().requeueAbandoned(), 0, "its worker lives");
        await tested.crash();
        assert.equal(await operations().requeueAbandoned(), 1);
        const settle = (o: OperationRecord) => operations().settle(o.id, o.lease, { state: "done" });
        await assert.rejects(settle(stale), { code: "aborted" });
        const [fresh] = await claim({ a: 1 });
        assert.ok(fresh && fresh.lease > stale.lease && fresh.attempt === 2);
        await assert.rejects(settle(stale), { code: "aborted" });
        await assert.rejects(operations().note(held(stale), "x"), { code: "aborted" });
        assert.deepEqual(await operations().renew([held(stale)]), []);
        assert.deepEqual((await operations().renew([held(fresh)])).map(held), [held(fresh)]);
        await operations().note(held(fresh), "create-instance");
        assert.equal((await operations().get(fresh.id))?.progress, "create-instance");
        const done = await settle(fresh);
        assert.deepEqual([done.state, done.progress], ["done", undefined]);
        await assert.rejects(settle(fresh), { code: "aborted" });
      });

      it("are given again to the one whose answer was lost, under a new lease", async () => {
        const { id } = await submit("a", "s");
        const first = await operations().begin(id);
        const second = await operations().begin(id);
        assert.ok(first && second && second.lease > first.lease);
        assert.equal(second.attempt, 1, "it is the same attempt");
        await assert.rejects(operations().settle(id, first.lease, { state: "done" }), { code: "aborted" });
      });

      it("keep their leases growing over restarts", async () => {
        await submit("a", "s");
        const [first] = await claim({ a: 1 });
        await tested.reopen();
        await operations().requeueAbandoned();
        const [second] = await claim({ a: 1 });
        assert.ok(first && second && second.lease > first.lease);
      });

      it("can be cancelled: a queued one at once, a running one by asking", async () => {
        const told: string[] = [];
        const unwatch = operations().watch((o) => told.push(`${o.subject} ${o.state} ${o.cancelReason ?? ""}`));
        const queued = await submit("a", "queued");
        assert.equal(await operations().requestCancel(queued.id, "no"), false);
        assert.equal(await operations().cancelQueued(queued.id, "not wanted"), true);
        assert.equal((await operations().get(queued.id))?.fault?.message, "not wanted");
        await submit("a", "runs");
        const [running] = await claim({ a: 1 });
        assert.ok(running);
        assert.equal(await operations().cancelQueued(running.id, "x"), false);
        assert.equal(await operations().requestCancel(running.id, "stop it"), true);
        assert.equal((await operations().renew([held(running)]))[0]?.cancelReason, "stop it");
        const fault = { code: "cancelled", message: "stop it", at: new Date().toISOString() };
        const over = await operations().settle(running.id, running.lease, { state: "cancelled", fault });
        assert.deepEqual(over.fault, fault);
        assert.equal(await operations().requestCancel(running.id, "again"), false);
        assert.deepEqual(told, ["queued cancelled ", "runs running stop it", "runs cancelled stop it"]);
        unwatch();
      });

      it("tell who watches when one failed and is tried again, and nothing when the adaptor's end cut it short", async () => {
        const told: string[] = [];
        const unwatch = operations().watch((o) => told.push(`${o.subject} ${o.state} ${o.fault?.message ?? ""}`));
        const { id } = await submit("a", "s");
        const fault = { code: "unavailable", message: "later", at: new Date().toISOString() };
        const again = { state: "queued", wakeAt: Date.now() } as const;
        await operations().settle(id, (await operations().begin(id))?.lease ?? 0, { ...again, uncounted: true });
        await operations().settle(id, (await operations().begin(id))?.lease ?? 0, { ...again, fault });
        assert.deepEqual(told, ["s queued later"]);
        unwatch();
      });

      it("keep the reason of their failure until they are forgotten", async () => {
        const { id } = await submit("a", "s");
        const begun = await operations().begin(id);
        const fault = { code: "permission_denied", message: "no rights", at: new Date().toISOString() };
        await operations().settle(id, begun?.lease ?? 0, { state: "failed", fault });
        await tested.reopen();
        assert.deepEqual(
          (await operations().list({ states: ["failed"] })).map((o) => o.fault),
          [fault],
        );
        const active = await submit("a", "t");
        assert.equal(await operations().prune(new Date(Date.now() - 60_000)), 0);
        assert.equal(await operations().prune(new Date(Date.now() + 1000)), 1);
        assert.deepEqual(
          (await operations().list()).map((o) => o.id),
          [active.id],
        );
        assert.equal(await operations().get(id), undefined);
      });

      it("are listed newest first, by state, kind and subject, so many", async () => {
        for (const subject of ["1", "2", "3"]) {
          await submit("a", subject);
          await new Promise((resolve) => setTimeout(resolve, 3)); // ms are what submissions are told apart by
        }
        await submit("b", "3");
        const [running] = await claim({ b: 1 });
        const list = async (filter: Parameters<ReturnType<typeof operations>["list"]>[0]) =>
          (await operations().list(filter)).map((o) => `${o.kind}${o.subject}`);
        assert.deepEqual(await list({ kind: "a", limit: 2 }), ["a3", "a2"]);
        assert.deepEqual(await list({ limit: 1 }), ["b3"]);
        assert.deepEqual((await list({ subject: "3" })).toSorted(), ["a3", "b3"]);
        assert.deepEqual(await list({ states: ["running"] }), ["b3"]);
        assert.deepEqual(await list({ states: ["queued", "done"], kind: "a" }), ["a3", "a2", "a1"]);
        await operations().settle(running?.id as OperationId, running?.lease ?? 0, { state: "done" });
        assert.deepEqual(await list({ states: ["done"] }), ["b3"]);
      });
    });

    it("undoes a write that fails alone, and commits the others of its turn", async () => {
      const record = await sandboxes().insert(newRecord());
      const other = newRecord();
      const outcomes = await Promise.allSettled([
        sandboxes().insert(record),
        sandboxes().insert(other),
        submit("a", other.id),
      ]);
      assert.deepEqual(codes(outcomes), ["already_exists", "done", "done"]);
      await tested.reopen();
      assert.equal((await sandboxes().get(other.id))?.id, other.id);
    });

    it("remembers what was agreed on first", async () => {
      assert.equal(await tested.store.agree("ca", "one"), "one");
      await tested.reopen();
      assert.equal(await tested.store.agree("ca", "two"), "one");
    });

    it("changes a fact for whoever knows its value, and finds facts by the begin of their names", async () => {
      const facts = () => tested.store.facts;
      assert.equal(await facts().get("node:a"), undefined);
      const first = await Promise.all([
        facts().swap("node:a", undefined, "1"),
        facts().swap("node:a", undefined, "2"),
        facts().swap("node:b", "nothing", "3"),
      ]);
      assert.deepEqual(first, [true, false, false]);
      assert.equal(await facts().swap("node:b", undefined, ""), true);
      assert.equal(await facts().swap("other", undefined, "ünïcode\n"), true);
      await tested.crash();
      assert.deepEqual(
        [...(await facts().list("node:"))],
        [
          ["node:a", "1"],
          ["node:b", ""],
        ],
      );
      assert.equal(await facts().get("other"), "ünïcode\n");
      assert.equal(await facts().swap("node:a", "1", undefined), true);
      assert.deepEqual([...(await facts().list("node:"))], [["node:b", ""]]);
    });

    it("gives the lead to one, whose token stays", async () => {
      const token = await tested.store.facts.lead("loop", 60_000);
      assert.ok(token !== undefined && token > 0);
      assert.equal(await tested.store.facts.lead("loop", 60_000), token);
    });

    it("scans all records in parts, or those of some phases", async () => {
      const made = await Promise.all(Array.from({ length: 250 }, (_, i) => sandboxes().insert(newRecord(`n${i}`))));
      const moved = made.slice(0, 120);
      for (const record of moved) await sandboxes().update(record, { phase: "creating" });
      const scan = async (...phases: Parameters<ReturnType<typeof sandboxes>["scan"]>) => {
        const parts: (readonly SandboxRecord[])[] = [];
        for await (const part of sandboxes().scan(...phases)) parts.push(part);
        assert.ok(parts.every((part) => part.length > 0 && part.length <= 100));
        return parts.flat();
      };
      assert.deepEqual(new Set((await scan()).map((r) => r.id)), new Set(made.map((r) => r.id)));
      assert.deepEqual(new Set((await scan(["creating"])).map((r) => r.id)), new Set(moved.map((r) => r.id)));
      assert.deepEqual(await scan(["gone", "lost"]), []);
    });

    it("refuses a step that the phase table does not have", async () => {
      const record = await sandboxes().insert(newRecord());
      await assert.rejects(sandboxes().update(record, { phase: "lost" }), /cannot become lost: it is prepared/);
      const gone = await sandboxes().update(record, { phase: "gone" });
      await assert.rejects(sandboxes().update(gone, { phase: "creating" }), { code: "internal" });
    });

    it("counts its changes, and begins a new epoch when it is told of more than it knows", async () => {
      const before = tested.store.position;
      await sandboxes().insert(newRecord());
      const after = tested.store.position;
      assert.ok(after.epoch === before.epoch && after.seq > before.seq);
      await tested.store.beginEpoch("another");
      assert.equal(tested.store.epoch.id, before.epoch);
      const record = await sandboxes().insert(newRecord());
      await tested.store.beginEpoch(before.epoch);
      assert.notEqual(tested.store.epoch.id, before.epoch);
      const next = tested.store.epoch;
      await tested.reopen();
      assert.deepEqual(tested.store.epoch, next);
      assert.equal((await sandboxes().get(record.id))?.id, record.id);
      const begun = await operations().begin((await submit("a", "s")).id);
      assert.ok(begun && begun.lease > Date.now() - 60_000, "leases from before must stay lower");
    });

    it("keeps what a newer version wrote into a record", async () => {
      const future = { ...newRecord(), addedLater: { deep: [1, 2] } };
      const inserted = await sandboxes().insert(future);
      const updated = await sandboxes().update(inserted, { phase: "creating" });
      assert.deepEqual((updated as unknown as typeof future).addedLater, future.addedLater);
      await tested.reopen();
      assert.deepEqual(await sandboxes().get(inserted.id), updated);
    });

    it("refuses what comes after its end", async () => {
      const { store } = tested;
      await tested.reopen();
      await assert.rejects(store.sandboxes.insert(newRecord()), { code: "unavailable" });
    });
  });
}
