import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { withDeadline } from "../../base/call.ts";
import { type Deferred, deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { newOperationId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { race } from "../../base/retry.ts";
import { SqliteStore } from "../store/index.ts";
import { EmbeddedQueue } from "./embedded-queue.ts";
import type { Attempt, HandlerLimits, OperationHandler, OperationKind } from "./operation-queue.ts";
import { settlementOf } from "./settlement.ts";

describe("embedded queue", { timeout: 60_000 }, () => {
  let dir: string;
  let store: SqliteStore;
  let queue: EmbeddedQueue;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "queue-"));
    store = await SqliteStore.open(join(dir, "store.sqlite"));
    queue = newQueue();
  });
  afterEach(async () => {
    await queue[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  function newQueue(): EmbeddedQueue {
    return new EmbeddedQueue({
      store: store.operations,
      log: silentLogger(),
      now: () => new Date(),
      abandonAfterMs: 50,
    });
  }
  function handle(kind: OperationKind, handler: OperationHandler, limits: Partial<HandlerLimits> = {}): void {
    queue.handle(kind, handler, { concurrency: 10, attempts: 3, priority: 1, timeoutMs: 10_000, ...limits });
  }
  const submit = (subject: string) => queue.submit({ kind: "start-vm", subject, input: {} });
  const wait = async (subject: string) => queue.wait((await submit(subject)).id, withDeadline(10_000));
  /** A handler that runs until it is let go. */
  function gate(): { begun: Deferred<Attempt>; go: Deferred<void>; handler: OperationHandler } {
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

  it("runs what was submitted before it was started, and what comes later", async () => {
    const ran: string[] = [];
    handle("start-vm", async ({ subject }) => void ran.push(subject));
    const early = await submit("early");
    await queue.start();
    assert.equal((await queue.wait(early.id, withDeadline(10_000))).state, "done");
    assert.equal((await wait("late")).state, "done");
    assert.deepEqual(ran, ["early", "late"]);
    assert.equal((await queue.wait(early.id, withDeadline(10))).state, "done", "also when it is over already");
  });

  it("tries again after a fault that may pass, not after another", async () => {
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
    await queue
      .submit({ kind: "stop-vm", subject: "other", input: { reason: "" } })
      .then((o) => queue.wait(o.id, withDeadline(10_000)));
    assert.deepEqual(order.splice(0), ["stop"], "another subject is not held up");
    first.go.resolve();
    await queue.wait(collect.id, withDeadline(10_000));
    await queue.wait(stop.id, withDeadline(10_000));
    assert.deepEqual(order, ["stop", "collect"]);
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
    assert.equal((await queue.wait(two.id, withDeadline(1000))).state, "cancelled");
    assert.equal(await queue.cancel(one.id, "no more"), true);
    const over = await queue.wait(one.id, withDeadline(10_000));
    assert.deepEqual([over.state, over.fault?.message], ["cancelled", "no more"]);
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
    assert.deepEqual(
      [(await store.operations.get(id))?.state, (await store.operations.get(id))?.attempt],
      ["queued", 0],
    );
    queue = newQueue();
    handle("start-vm", async () => undefined);
    await queue.start();
    assert.equal((await queue.wait(id, withDeadline(10_000))).state, "done");
  });

  it("gives up on a handler that does not stop in time, and its fence keeps it from acting", async () => {
    const attempts: Attempt[] = [];
    const never = new Promise<void>(() => undefined);
    handle(
      "start-vm",
      async (_, attempt) => {
        attempts.push(attempt);
        await attempt.fence();
        if (attempts.length === 1) await never;
      },
      { timeoutMs: 20 },
    );
    await queue.start();
    const over = await wait("s");
    assert.deepEqual([over.state, over.attempt], ["done", 2]);
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
    const flaky = new Proxy(store.operations, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== "function") return value;
        const method = value.bind(target) as (...args: unknown[]) => unknown;
        return (...args: unknown[]) =>
          key === "settle" && broken-- > 0 ? Promise.reject(new Fault("unavailable", "disk full")) : method(...args);
      },
    });
    await queue[Symbol.asyncDispose]();
    queue = new EmbeddedQueue({ store: flaky, log: silentLogger(), now: () => new Date() });
    handle("start-vm", async () => undefined);
    await queue.start();
    assert.equal((await wait("s")).state, "done");
  });
});

describe("settlement", () => {
  it("backs off longer with every attempt, up to a minute, and never gives up what must be done", async () => {
    const now = new Date(1_000_000);
    const delays = [1, 2, 5, 50].map((attempt) => {
      const operation = {
        id: newOperationId(),
        kind: "stop-vm",
        subject: "s",
        input: {},
        state: "running",
        priority: 0,
        attempt,
        wakeAt: 0,
        lease: 1,
        submittedAt: "",
      } as const;
      const fault = new Fault("permission_denied", "no");
      const settlement = settlementOf({ operation, fault, cause: "failed", attempts: Number.POSITIVE_INFINITY, now });
      assert.equal(settlement.state, "queued");
      return settlement.state === "queued" ? settlement.wakeAt - now.getTime() : 0;
    });
    const [first = 0, , , last = 0] = delays;
    assert.ok(first >= 250 && first <= 500 && last >= 30_000 && last <= 60_000, delays.join(" "));
    assert.ok(delays.every(Number.isInteger));
  });
});
