import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { SimulatedAdaptor } from "../../bench/burst/simulated-adaptor.ts";

// The adaptor with provider aws on the published limits and a virtual clock: minutes of EC2 take a second here.
let world: SimulatedAdaptor;
beforeEach(async () => {
  world = await SimulatedAdaptor.open();
});
afterEach(() => world[Symbol.asyncDispose]());

const account = () => world.ec2.service.account;
const zones = () => Object.groupBy([...account().instances.values()], (i) => i.subnet.zone);

async function startAll(count: number): Promise<number> {
  const began = world.clock.now().getTime();
  const ids = await world.clock.run(Promise.all(Array.from({ length: count }, () => world.startPod())));
  const seconds = (world.clock.now().getTime() - began) / 1000;
  const records = await Promise.all(ids.map((id) => world.engine.store.sandboxes.get(id)));
  assert.equal(new Set(records.map((r) => r?.instance?.id)).size, count, "each has an instance of its own");
  return seconds;
}

describe("the adaptor on EC2's limits", { timeout: 120_000 }, () => {
  it("fills one zone, then the next, without an instance too many", async () => {
    account().knobs.short.add("*/eu-west-1a");
    account().knobs.pools.set("c6a.large/eu-west-1b", 5);
    await startAll(20);
    const used = zones();
    assert.deepEqual([used["eu-west-1a"], used["eu-west-1b"]?.length, used["eu-west-1c"]?.length], [undefined, 5, 15]);
    assert.equal(account().instances.size, 20);
  });

  it("makes no second set when answers are lost", async () => {
    world.ec2.service.inject({ action: "RunInstances", afterEffect: true, drop: true, times: 2 });
    await startAll(30);
    assert.equal(account().instances.size, 30);
  });

  it("keeps to the limit by itself: EC2 throttles next to nothing, and no time is lost", async () => {
    account().knobs.resourceBuckets.set("RunInstances", { capacity: 1000, refillPerSecond: 2 });
    // Someone else has used the account's bucket up: the adaptor has to find that out.
    const taken = account().knobs.buckets.get("RunInstances");
    assert.ok(taken !== undefined);
    account().knobs.buckets.set("RunInstances", { capacity: 1, refillPerSecond: 0.5 });
    const seconds = await startAll(400);
    assert.equal(world.ec2.calls.get("RunInstances"), 4 + world.ec2.throttled);
    // Four requests at one in two seconds.
    assert.ok(seconds < 20, `${seconds} s`);
    assert.ok(world.ec2.throttled <= 6, `${world.ec2.throttled} throttled`);
  });
});
