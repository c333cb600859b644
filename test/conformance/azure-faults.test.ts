import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { background, withDeadline } from "../../src/base/call.ts";
import type { Fault } from "../../src/base/fault.ts";
import { newOperationId } from "../../src/base/ids.ts";
import type { Instance, InstanceSpec, Provider } from "../../src/provider/index.ts";
import { AzureWorld, type InjectedFault, installAzureSdk, type Knobs } from "../clouds/arm/index.ts";

const sdk = await installAzureSdk();
const model = "missing" in sdk ? undefined : sdk.model;
const PATIENCE_MS = 60_000;
const POLL_MS = 20;

/** What can be wrong with one answer. */
const WRONG: Readonly<Record<string, Omit<InjectedFault, "action">>> = {
  "gives no answer and has no effect": { drop: true },
  "gives no answer after its effect": { drop: true, afterEffect: true },
  "answers 500": { error: { code: "InternalExecutionError", message: "try again", status: 500 } },
  "answers 500 after its effect": {
    ...{ error: { code: "InternalServerError", message: "try again", status: 500 }, afterEffect: true },
  },
  "answers 503 twice": { error: { code: "ServerTimeout", message: "try again", status: 503 }, times: 2 },
  "answers 429": {
    error: { code: "TooManyRequests", message: "too many requests", status: 429, retryAfter: "1" },
  },
};
const ASKED = [
  "VirtualMachines_CreateOrUpdate",
  "VirtualMachines_Get",
  "VirtualMachines_List",
  "VirtualMachines_Delete",
  "NetworkInterfaces_Get",
  "NetworkInterfaces_List",
] as const;

async function settled(provider: Provider, id: Instance["id"], patienceMs: number): Promise<Instance | undefined> {
  for (const call = withDeadline(patienceMs); ; await delay(POLL_MS, undefined, { signal: call.signal })) {
    const instance = await again(() => provider.getInstance(id, call));
    if (instance === undefined || instance.state === "failed") return instance;
    if (instance.state === "running" && instance.addresses.length > 0) return instance;
  }
}

/** As the adaptor does: what may pass is asked again. */
async function again<T>(ask: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask();
    } catch (e) {
      if (attempt >= 5 || (e as { code?: string }).code !== "unavailable") throw e;
    }
  }
}

/** As the adaptor does: one place after the other, until one has room. */
async function makeSomewhere(provider: Provider, spec: InstanceSpec): Promise<Instance["id"]> {
  const { batches } = provider;
  assert.ok(batches !== undefined);
  let last: unknown;
  for (const { key } of await again(() => batches.places(spec, background()))) {
    // An operation of its own for each place.
    const tags = { ...spec.tags, createOperation: newOperationId() };
    const batch = { class: { ...spec, tags }, count: 1, place: key, admitted: false };
    try {
      const [made] = await again(() => batches.createInstances(batch, withDeadline(PATIENCE_MS)));
      if (made !== undefined) return made.id;
    } catch (e) {
      last = e;
      if ((e as Fault).code !== "resource_exhausted") throw e;
    }
  }
  throw last;
}

/**
 * Makes a VM, lists it, deletes it until it is gone, with something wrong on the way.
 * @returns what came of it; nothing may be left in the account
 */
async function live(
  disturb: (world: AzureWorld) => void,
  knobs: Partial<Knobs> = {},
  patienceMs = PATIENCE_MS,
): Promise<{ readonly made: Instance | undefined; readonly vms: number; readonly problem: unknown }> {
  await using world = await AzureWorld.open(model);
  const { cloud } = world.endpoint;
  Object.assign(cloud.knobs, { createMs: 50, deleteMs: 150, retryAfterS: 0, ...knobs });
  const provider = await world.provider();
  disturb(world);
  const spec = world.spec();
  let made: Instance | undefined;
  let problem: unknown;
  try {
    const id = await makeSomewhere(provider, spec);
    made = await settled(provider, id, patienceMs);
  } catch (e) {
    problem = e;
  }
  const vms = cloud.all("Microsoft.Compute/virtualMachines").length;
  // What is left is found by its tags, as the reconciler does.
  for (let pass = 0; pass < 200; pass++) {
    const listed = await again(() => provider.listInstances("c1", withDeadline(PATIENCE_MS)));
    for (const { id } of listed) await again(() => provider.deleteInstance(id, background()));
    if (cloud.leftovers().length === 0) break;
    world.clock.advance(5_000);
    await delay(POLL_MS);
  }
  assert.deepEqual(cloud.leftovers(), []);
  assert.deepEqual(world.endpoint.replyProblems, []);
  return { made, vms, problem };
}

describe("a VM's life with provider azure", { timeout: 300_000 }, () => {
  for (const action of ASKED) {
    it(`is whole and leaves nothing, when ${action} goes wrong in any way`, async () => {
      const lives = Object.entries(WRONG).map(async ([how, fault]) => {
        const { made, vms, problem } = await live((world) => world.endpoint.inject({ action, ...fault }));
        assert.equal(problem, undefined, `${action} ${how}: ${String(problem)}`);
        assert.equal(made?.state, "running", `${action} ${how}`);
        assert.equal(vms, 1, `${action} ${how}`);
      });
      await Promise.all(lives);
    });
  }

  it("goes on in the next zone when the first has no room, and leaves nothing in the first", async () => {
    const { made } = await live((world) => world.endpoint.cloud.knobs.short.add("*/1"));
    assert.equal(made?.state, "running");
  });

  it("fails with the numbers when a quota is used up, and leaves nothing", async () => {
    const { problem, vms } = await live((world) => world.endpoint.cloud.knobs.quota.set("cores", 1), {
      orphanNics: true,
    });
    assert.match(String(problem), /quota.*0\/1|cores/i);
    assert.equal(vms, 0);
  });

  it("goes on in another size when one is not offered here", async () => {
    const { made } = await live((world) => world.endpoint.cloud.knobs.restricted.add("Standard_DC2as_v5"));
    assert.equal(made?.state, "running");
  });

  it("is over for a VM that stays Creating for ever", async () => {
    const { vms, problem } = await live(() => undefined, { stuckCreations: 1 }, 3_000);
    assert.equal(vms, 1);
    assert.notEqual(problem, undefined);
  });

  it("is slow when Azure throttles every kind of request, and whole", async () => {
    const { made } = await live((world) => {
      for (const group of ["PutVM", "GetVM", "ListVM", "DeleteVM"]) {
        world.endpoint.cloud.knobs.buckets.set(group, { capacity: 1, refillPerSecond: 5 });
      }
    });
    assert.equal(made?.state, "running");
  });
});
