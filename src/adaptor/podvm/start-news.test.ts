import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AdaptorUnderTest } from "../../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId } from "../../base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../../gen/kataremote/podvm/v1/podvm.ts";
import type { AdaptorStore } from "../store/index.ts";
import { StartNews } from "./start-news.ts";

const PODS = 100;
const call = (ms: number) => ({ signal: AbortSignal.timeout(ms) });

/** The store, which counts how often single records and operations are read. */
function counted(store: AdaptorStore, reads: { count: number }): AdaptorStore {
  const counting = <T extends object>(part: T): T =>
    new Proxy(part, {
      get(object, key) {
        const value: unknown = Reflect.get(object, key, object);
        if (typeof value !== "function") return value;
        if (key === "get") reads.count++;
        return value.bind(object);
      },
    });
  const [sandboxes, operations] = [counting(store.sandboxes), counting(store.operations)];
  return new Proxy(store, {
    get(object, key) {
      if (key === "sandboxes") return sandboxes;
      if (key === "operations") return operations;
      const value: unknown = Reflect.get(object, key, object);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
}

describe("who follows a start", { timeout: 60_000 }, () => {
  it("asks the store for nothing while nothing happens, however many there are", async () => {
    const reads = { count: 0 };
    const wrapStore = (store: AdaptorStore) => counted(store, reads);
    await using tested = await AdaptorUnderTest.open({ deps: { wrapStore } });
    tested.provider.knobs.createLatencyMs = 60_000;
    const ids = await Promise.all(Array.from({ length: PODS }, () => tested.createVm()));
    const accepted = Promise.withResolvers<void>();
    let following = 0;
    const over = new AbortController();
    const streams = ids.map(async (sandboxId) => {
      for await (const event of tested.client.startVm({ sandboxId }, over)) {
        if (event.stage === Stage.ACCEPTED && ++following === PODS) accepted.resolve();
      }
    });
    await accepted.promise;
    await new Promise((resolve) => setTimeout(resolve, 300)); // what follows from the last one's begin
    const before = reads.count;
    await new Promise((resolve) => setTimeout(resolve, 4_500));
    const read = reads.count - before;
    assert.ok(read < PODS / 10, `${read} reads while ${PODS} starts were followed for 4.5 s`);
    over.abort();
    await Promise.allSettled(streams);
  });

  for (const places of [undefined, ["a"]]) {
    const how = places === undefined ? "it waits by itself" : "it waits for its batch";
    it(`is told at once when an attempt failed and another follows, as ${how}`, async () => {
      await using tested = await AdaptorUnderTest.open({
        config: { capacity: { batchWindowMs: 10 }, providers: { zero: places === undefined ? {} : { places } } },
      });
      const broken = () => new Fault("unavailable", "the cloud is broken", { kind: "transient", retryAfterMs: 1_500 });
      tested.provider.knobs.createFaults.push(broken());
      const sandboxId = await tested.createVm();
      const [began, seen] = [performance.now(), [] as (readonly [number, string, number])[]];
      for await (const { stage, message } of tested.client.startVm({ sandboxId }, call(20_000))) {
        seen.push([stage, message, performance.now() - began]);
      }
      const stages = seen.map(([stage]) => stage);
      assert.deepEqual(stages, [Stage.ACCEPTED, Stage.WAITING, Stage.INSTANCE, Stage.ADDRESS]);
      const [, message, ms] = seen[1] ?? [0, "", 0];
      assert.equal(message, "the cloud is broken");
      assert.ok(ms < 1_200, `told after ${ms} ms, before the next attempt`);
    });
  }

  it("who comes later is told why it is tried again", async () => {
    await using tested = await AdaptorUnderTest.open();
    tested.provider.knobs.createFaults.push(new Fault("unavailable", "first", { retryAfterMs: 2_000 }));
    const sandboxId = await tested.createVm();
    for await (const { stage } of tested.client.startVm({ sandboxId }, call(20_000))) {
      if (stage === Stage.WAITING) break;
    }
    const events = await tested.startVm(sandboxId);
    assert.deepEqual(events.map((e) => e.message).slice(0, 2), ["", "first"]);
  });

  it("looks again now and then, and stops listening with the last one", async () => {
    let listeners = 0;
    const watch = () => {
      listeners++;
      return () => void listeners--;
    };
    const epoch = { id: "one", createdAt: new Date() };
    const store = { epoch, sandboxes: { watch }, operations: { watch } } as unknown as AdaptorStore;
    const news = new StartNews(store, { lookMs: 50 });
    const id = newSandboxId();
    {
      using one = news.follow(id);
      using _two = news.follow(id);
      assert.equal(listeners, 2);
      assert.deepEqual(await one.next(call(5_000)), { troubles: [], look: true });
      assert.deepEqual(await one.next(call(5_000)), { troubles: [], look: true });
    }
    assert.equal(listeners, 0);
  });
});
