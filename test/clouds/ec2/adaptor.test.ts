import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { SimulatedAdaptor } from "../../bench/burst/simulated-adaptor.ts";

// The adaptor with provider aws on the published limits and a virtual clock: minutes of EC2 take a second here.
let world: SimulatedAdaptor;
beforeEach(async () => {
  world = await SimulatedAdaptor.open();
});
afterEach(() => world[Symbol.asyncDispose]());

/** An adaptor whose provider is configured in another way. */
async function reopen(change: Readonly<Record<string, unknown>>): Promise<void> {
  await world[Symbol.asyncDispose]();
  world = await SimulatedAdaptor.open(change);
}

const account = () => world.ec2.service.account;
const zones = () => Object.groupBy([...account().instances.values()], (i) => i.subnet.zone);

const made = () => [...account().instances.values()];
const launches = () => world.ec2.calls.get("RunInstances") ?? 0;

/** Starts one pod that must fail. @returns why, as its node is told */
async function failure(): Promise<string> {
  let message = "";
  await assert.rejects(world.clock.run(world.startPod()), (e) => {
    message = String(e);
    return true;
  });
  return message;
}

function later(ms: number): Promise<void> {
  return world.clock.run(new Promise<void>((resolve) => world.clock.after(ms, resolve)));
}

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

  it("gives an instance that stays pending to its pod, which may find it booted, and ends it with the pod", async () => {
    account().knobs.pendingMs = 1e12;
    const id = await world.clock.run(world.startPod());
    assert.deepEqual(
      made().map((i) => account().state(i)),
      ["pending"],
    );
    await world.clock.run(world.stopPod(id).then(() => world.untilGone()));
    await later(120_000); // it takes its time to end
    assert.deepEqual(account().leftovers(), []);
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

describe("where a place has no room", { timeout: 120_000 }, () => {
  it("goes on to the next zone at once, and begins there until the shortage is forgotten", async () => {
    account().knobs.short.add("*/eu-west-1a");
    await startAll(1);
    assert.deepEqual([made().map((i) => i.subnet.zone), launches()], [["eu-west-1b"], 2]);
    await startAll(1);
    assert.equal(launches(), 3);
    account().knobs.short.clear();
    await later(200_000);
    await startAll(1);
    assert.deepEqual(
      made()
        .map((i) => i.subnet.zone)
        .sort(),
      ["eu-west-1a", "eu-west-1b", "eu-west-1b"],
    );
  });

  it("takes the next larger type when no zone has the best one", async () => {
    for (const zone of ["a", "b", "c"]) account().knobs.short.add(`c6a.large/eu-west-1${zone}`);
    await startAll(1);
    assert.deepEqual(
      made().map((i) => i.type.name),
      ["m6a.large"],
    );
  });

  it("uses another subnet when one is full", async () => {
    account().knobs.freeAddresses.set("subnet-0a1b2c3d4e5f6000a", 0);
    await startAll(1);
    assert.deepEqual(
      made().map((i) => i.subnet.zone),
      ["eu-west-1b"],
    );
  });

  it("goes from spot to on-demand where that is wanted", async () => {
    await reopen({ market: "spot-then-on-demand", instanceTypes: [] });
    for (const zone of ["a", "b", "c"]) account().knobs.short.add(`*/eu-west-1${zone}/spot`);
    await startAll(1);
    assert.deepEqual(
      made().map((i) => i.spot),
      [false],
    );
  });

  it("stays with spot where only that is wanted, and says so", async () => {
    await reopen({ market: "spot", instanceTypes: [] });
    for (const zone of ["a", "b", "c"]) account().knobs.short.add(`*/eu-west-1${zone}/spot`);
    assert.match(await failure(), /m6a\.large in eu-west-1a \(spot\): no capacity/);
    assert.deepEqual(made(), []);
  });

  it("says what was tried, and tries no more than it may", async () => {
    await reopen({ maxCandidates: 4 });
    for (const zone of ["a", "b", "c"]) account().knobs.short.add(`*/eu-west-1${zone}`);
    assert.match(await failure(), /4 places have no room: .*c6a\.large in eu-west-1a: no capacity, /);
    assert.deepEqual(made(), []);
    assert.equal(launches() % 4, 0, `${launches()} requests`);
  });

  it("says a quota with its numbers, and asks for no other place that counts against it", async () => {
    account().knobs.vcpuQuota.set("Standard/on-demand", 2);
    await startAll(1);
    const before = launches();
    assert.match(
      await failure(),
      /quota of 2 vCPUs for on-demand Standard instances in eu-west-1 is used up, c6a\.large needs 2 more/,
    );
    assert.equal(launches(), before + 1);
  });

  it("goes on to on-demand when the spot quota is used up", async () => {
    await reopen({ market: "spot-then-on-demand" });
    account().knobs.vcpuQuota.set("Standard/spot", 0);
    await startAll(1);
    assert.deepEqual([made().map((i) => i.spot), launches()], [[false], 2]);
  });
});
