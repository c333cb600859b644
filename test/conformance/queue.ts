import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import type {
  Attempt,
  HandlerLimits,
  OperationHandler,
  OperationKind,
  OperationQueue,
  OperationRunsDeps,
} from "../../src/adaptor/operation/index.ts";
import type { AdaptorStore, OperationStore } from "../../src/adaptor/store/index.ts";
import { withDeadline } from "../../src/base/call.ts";
import { type Deferred, deferred } from "../../src/base/deferred.ts";
import { Fault } from "../../src/base/fault.ts";
import { newOperationId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import { race } from "../../src/base/retry.ts";

/** A queue under test. */
export interface QueueUnderTest extends AsyncDisposable {
  readonly store: AdaptorStore;
  /** A queue on the store; the caller closes it. */
  createQueue(deps: OperationRunsDeps): OperationQueue;
}

/** A handler that runs until it is let go. */
export function gate(): { begun: Deferred<Attempt>; go: Deferred<void>; handler: OperationHandler } {
  const begun = deferred<Attempt>();
  const go = deferred<void>();
  return {
    begun,
    go,
    handler: async (_, attempt) => {
      begun.resolve(attempt);
      await race(go.promise, attempt.call);
    },
  };
}

/** What every OperationQueue promises. */
export function queueConformance(name: string, create: () => Promise<QueueUnderTest>, skip: string | false = false) {
  describe(`queue ${name}`, { timeout: 120_000, skip }, () => {
    let tested: QueueUnderTest;
    let queue: OperationQueue;
    beforeEach(async () => {
      tested = await create();
      queue = newQueue();
    });
    afterEach(async () => {
      await queue[Symbol.asyncDispose]();
      await tested[Symbol.asyncDispose]();
    });

    function newQueue(store: OperationStore = tested.store.operations): OperationQueue {
      return tested.createQueue({ store, log: silentLogger(), now: () => new Date(), abandonAfterMs: 50 });
    }
    function handle(kind: OperationKind, handler: OperationHandler, limits: Partial<HandlerLimits> = {}): void {
      queue.handle(kind, handler, { concurrency: 10, attempts: 3, priority: 1, timeoutMs: 10_000, ...limits });
    }
    const submit = (subject: string) => queue.submit({ kind: "start-vm", subject, input: {} });
    const over = (id: Awaited<ReturnType<typeof submit>>["id"]) => queue.wait(id, withDeadline(10_000));
    const wait = async (subject: string) => over((await submit(subject)).id);

    it("runs what was submitted before it was started, and what comes later", async () => {
      const ran: string[] = [];
      handle("start-vm", async ({ subject }) => void ran.push(subject));
      const early = await submit("early");
      await queue.start();
      assert.equal((await over(early.id)).state, "done");
      assert.equal((await wait("late")).state, "done");
      assert.deepEqual(ran, ["early", "late"]);
      assert.equal((await queue.wait(early.id, withDeadline(1000))).state, "done", "also when it is over already");
      assert.equal((await wait("late")).state, "done", "and again");
      assert.equal(ran.length, 3);
    });

    it("tries again after a fault that may pass, not after another, and keeps the reason", async () => {
      const attempts: string[] = [];
      handle("start-vm", async ({ subject, attempt }, { last }) => {
        attempts.push(`${subject}${attempt}${last ? " last" : ""}`);
        throw new Fault(subject === "passing" ? "unavailable" : "invalid_argument", `no ${attempt}`);
      });
      await queue.start();
      const [passing, lasting] = await Promise.all([wait("passing"), wait("lasting")]);
      assert.deepEqual([passing.state, passing.fault?.message], ["failed", "no 3"]);
      assert.deepEqual([lasting.state, lasting.attempt, lasting.fault?.code], ["failed", 1, "invalid_argument"]);
      assert.deepEqual(
        attempts.filter((a) => a.startsWith("passing")),
        ["passing1", "passing2", "passing3 last"],
      );
      const dead = await tested.store.operations.list({ states: ["failed"] });
      assert.equal(dead.length, 2);
    });

    it("never runs two operations of one subject side by side, and the urgent one next", async () => {
      const order: string[] = [];
      const first = gate();
      handle("start-vm", first.handler, { priority: 10 });
      handle("collect-instance", async () => void order.push("collect"), { priority: 5 });
      handle("stop-vm", async () => void order.push("stop"), { priority: 0 });
      await queue.start();
      await submit("s");
      await first.begun.promise;
      const collect = await queue.submit({ kind: "collect-instance", subject: "s", input: {} });
      const stop = await queue.submit({ kind: "stop-vm", subject: "s", input: { reason: "" } });
      await queue.submit({ kind: "stop-vm", subject: "other", input: { reason: "" } }).then((o) => over(o.id));
      assert.deepEqual(order.splice(0), ["stop"], "another subject is not held up");
      first.go.resolve();
      await over(collect.id);
      await over(stop.id);
      assert.deepEqual(order, ["stop", "collect"]);
    });

    it("begins a stop before the start of the same sandbox that was submitted first", async () => {
      const order: string[] = [];
      handle("start-vm", async () => void order.push("start"), { priority: 10 });
      handle("stop-vm", async () => void order.push("stop"), { priority: 0 });
      const start = await submit("s");
      await queue.submit({ kind: "stop-vm", subject: "s", input: { reason: "" } });
      await queue.start();
      await over(start.id);
      assert.deepEqual(order, ["stop", "start"]);
    });

    it("begins what someone waits for before what nobody does", async () => {
      const order: string[] = [];
      handle("start-vm", async ({ subject }) => void order.push(subject), { concurrency: 1, priority: 10 });
      const refill = await queue.submit({ kind: "start-vm", subject: "pool", input: {}, priority: 100 });
      const pods = [await submit("pod-1"), await submit("pod-2")];
      await queue.start();
      for (const { id } of [refill, ...pods]) await over(id);
      assert.deepEqual([order.length, order.at(-1)], [3, "pool"]);
    });

    it("keeps to the concurrency of a kind", async () => {
      let running = 0;
      let most = 0;
      handle(
        "start-vm",
        async () => {
          most = Math.max(most, ++running);
          await new Promise((resolve) => setTimeout(resolve, 5));
          running--;
        },
        { concurrency: 3 },
      );
      await queue.start();
      await Promise.all(Array.from({ length: 12 }, (_, i) => wait(String(i))));
      assert.equal(most, 3);
    });

    it("ends a running operation's call when it is cancelled, and a queued one at once", async () => {
      const running = gate();
      handle("start-vm", running.handler, { concurrency: 1 });
      await queue.start();
      const one = await submit("one");
      await running.begun.promise;
      const two = await submit("two");
      assert.equal(await queue.cancel(two.id, "not wanted"), true);
      assert.equal((await over(two.id)).state, "cancelled");
      assert.equal(await queue.cancel(one.id, "no more"), true);
      const ended = await over(one.id);
      assert.deepEqual([ended.state, ended.fault?.message], ["cancelled", "no more"]);
      assert.equal(await queue.cancel(one.id, "again"), false);
      assert.equal(await queue.cancel(newOperationId(), "unknown"), false);
    });

    it("interrupts what runs when it closes, and takes it up again without counting the attempt", async () => {
      const running = gate();
      handle("start-vm", running.handler);
      await queue.start();
      const { id } = await submit("s");
      await running.begun.promise;
      await queue[Symbol.asyncDispose]();
      const left = await tested.store.operations.get(id);
      assert.deepEqual([left?.state, left?.attempt], ["queued", 0]);
      queue = newQueue();
      handle("start-vm", async () => undefined);
      await queue.start();
      assert.equal((await over(id)).state, "done");
    });

    it("does not run what was asked to end while its worker died", async () => {
      const { operations } = tested.store;
      const { id } = await submit2(operations);
      const dead = await operations.begin(id);
      await operations.requestCancel(id, "stopped meanwhile");
      await operations.settle(id, dead?.lease ?? 0, { state: "queued", wakeAt: Date.now() });
      let ran = false;
      handle("start-vm", async () => {
        ran = true;
      });
      await queue.start();
      const ended = await over(id);
      assert.deepEqual([ended.state, ended.fault?.message, ran], ["cancelled", "stopped meanwhile", false]);
    });

    it("gives up on a handler that does not stop in time, and its fence keeps it from acting", async () => {
      const attempts: Attempt[] = [];
      const never = new Promise<void>(() => undefined);
      handle(
        "start-vm",
        async (_, attempt) => {
          attempts.push(attempt);
          await attempt.fence();
          await attempt.fence("wait for ever");
          if (attempts.length === 1) await never;
        },
        { timeoutMs: 100 },
      );
      await queue.start();
      const ended = await wait("s");
      assert.deepEqual([ended.state, ended.attempt], ["done", 2]);
      await assert.rejects(async () => attempts[0]?.fence(), { code: "deadline_exceeded" });
    });

    it("waits no longer than its caller", async () => {
      const running = gate();
      handle("start-vm", running.handler);
      await queue.start();
      const { id } = await submit("s");
      await assert.rejects(queue.wait(id, withDeadline(20)), { code: "deadline_exceeded" });
      await assert.rejects(queue.wait(newOperationId(), withDeadline(1000)), { code: "not_found" });
    });

    it("goes on after the store could not be written for a while", async () => {
      let broken = 1;
      const { operations } = tested.store;
      const flaky = new Proxy(operations, {
        get(target, key) {
          const value: unknown = Reflect.get(target, key, target);
          if (typeof value !== "function") return value;
          const method = value.bind(target) as (...args: unknown[]) => unknown;
          return (...args: unknown[]) =>
            key === "settle" && broken-- > 0 ? Promise.reject(new Fault("unavailable", "disk full")) : method(...args);
        },
      });
      await queue[Symbol.asyncDispose]();
      queue = newQueue(flaky);
      handle("start-vm", async () => undefined);
      await queue.start();
      assert.equal((await wait("s")).state, "done");
    });

    it("is rebuilt from the store, which alone knows what there is to do", async () => {
      const { operations } = tested.store;
      // Written as an adaptor does that dies right after: no queue has heard of them.
      const made = await Promise.all(Array.from({ length: 50 }, (_, i) => submit2(operations, String(i))));
      handle("start-vm", async () => undefined);
      await queue.start();
      const ends = await Promise.all(made.map(({ id }) => over(id)));
      assert.ok(ends.every((o) => o.state === "done" && o.attempt === 1));
    });

    const submit2 = (store: OperationStore, subject = "s") =>
      store.submit({ id: newOperationId(), kind: "start-vm", subject, input: {}, priority: 1 });
  });
}
