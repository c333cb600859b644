import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AdaptorConfig, type Engine, openEngine } from "../../../src/adaptor/index.ts";
import { background } from "../../../src/base/call.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { newSandboxId, type SandboxId } from "../../../src/base/ids.ts";
import { silentLogger } from "../../../src/base/silent-log.ts";
import { AzureWorld } from "./provider-fixture.ts";

const CREATE = "VirtualMachines_CreateOrUpdate";

/** The adaptor without its doors, with provider azure on an account of its own. */
class World implements AsyncDisposable {
  readonly azure: AzureWorld;
  readonly engine: Engine;
  readonly #parts: AsyncDisposableStack;
  #pods = 0;

  private constructor(azure: AzureWorld, engine: Engine, parts: AsyncDisposableStack) {
    this.azure = azure;
    this.engine = engine;
    this.#parts = parts;
  }

  /** @param change of the provider's configuration */
  static async open(change: Readonly<Record<string, unknown>> = {}): Promise<World> {
    const parts = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), "azure-adaptor-"));
    parts.defer(() => rm(dir, { recursive: true }));
    const azure = parts.use(await AzureWorld.open());
    // Loops pause the longer the longer a listing takes, which waits for others to share it.
    const provider = await azure.provider({ coalesceMs: 0, ...change });
    const settings = { reconcile: { intervalMs: 200, orphanGraceMs: 0 }, limits: { startAttempts: 1 } };
    const config = parseConfig(AdaptorConfig, { stateDir: dir, cluster: "c1", provider: "azure", ...settings }, "test");
    // Else the listings of the account's own pace: one in 45 s.
    Object.assign(provider.account ?? {}, { listIntervalMs: 200 });
    const engine = await openEngine(config, { provider, log: silentLogger() }, parts);
    return new World(azure, engine, parts);
  }

  get cloud() {
    return this.azure.endpoint.cloud;
  }

  get zones(): readonly string[] {
    return this.cloud.all("Microsoft.Compute/virtualMachines").flatMap((vm) => vm.zones);
  }

  /** One pod as a node starts it, until its VM has an address. */
  async startPod(): Promise<SandboxId> {
    const id = newSandboxId();
    const request = {
      ...{ id, nodeId: "node-0", size: { vcpus: 2, memoryMiB: 2048, gpus: 0 } },
      pod: { namespace: "n", name: `pod-${this.#pods++}`, uid: id },
      containerd: { namespace: "k8s.io", id },
    };
    await this.engine.service.createVm(request, background());
    for await (const event of this.engine.service.startVm(id, background())) {
      if (event.stage === "failed") throw new Error(`${event.code}: ${event.message}`);
    }
    return id;
  }

  async stopAll(): Promise<void> {
    for (const { id } of await this.engine.store.sandboxes.list()) {
      await this.engine.service.stopVm({ id, reason: "the pod is deleted" }, background());
    }
    await this.untilEmpty();
  }

  async untilEmpty(): Promise<void> {
    for (let i = 0; this.cloud.leftovers().length > 0; i++) {
      assert.ok(i < 600, JSON.stringify(this.cloud.leftovers()));
      await delay(50);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

let world: World;
beforeEach(async () => {
  world = await World.open({ sizes: [] });
});
afterEach(() => world[Symbol.asyncDispose]());

async function failure(): Promise<string> {
  let message = "";
  await assert.rejects(world.startPod(), (e) => {
    message = String(e);
    return true;
  });
  return message;
}

describe("the adaptor on Azure", { timeout: 120_000 }, () => {
  it("starts pods side by side, each in a VM of its own, and leaves nothing", async () => {
    const ids = await Promise.all(Array.from({ length: 10 }, () => world.startPod()));
    const records = await Promise.all(ids.map((id) => world.engine.store.sandboxes.get(id)));
    assert.equal(new Set(records.flatMap((r) => r?.instance?.addresses ?? [])).size, 10);
    assert.equal(world.azure.endpoint.count(CREATE), 10);
    await world.stopAll();
  });

  it("goes on to the next zone at once though Azure had accepted the first VM, and begins there from then on", async () => {
    world.cloud.knobs.short.add("Standard_DC2as_v5/1");
    await world.startPod();
    assert.deepEqual([world.zones, world.azure.endpoint.count(CREATE)], [["2"], 2]);
    await world.startPod();
    assert.equal(world.azure.endpoint.count(CREATE), 3);
    await world.stopAll();
  });

  it("says a quota with its numbers in the pod's event, and asks for no other place that counts against it", async () => {
    world.cloud.knobs.quota.set("standardDCASv5Family", 2);
    await world.startPod();
    assert.match(await failure(), /standardDCASv5Family Cores quota 2\/2 in westeurope, 2 more are needed/);
    assert.equal(world.azure.endpoint.count(CREATE), 2);
    await world.stopAll();
  });

  it("says what was tried when no place has room, and leaves nothing", async () => {
    world.cloud.knobs.short.add("*");
    assert.match(await failure(), /2 places have no room: Standard_DC2as_v5 in zone 1: no capacity, .*zone 2/);
    await world.untilEmpty();
  });

  it("makes no second VM when answers are lost", async () => {
    world.azure.endpoint.inject({ action: CREATE, afterEffect: true, drop: true, times: 2 });
    await Promise.all(Array.from({ length: 4 }, () => world.startPod()));
    assert.equal(world.zones.length, 4);
    await world.stopAll();
  });

  it("starts as many as it is asked for when Azure throttles every kind of request, and leaves nothing", async () => {
    for (const group of ["PutVM", "GetVM", "ListVM", "DeleteVM"]) {
      world.cloud.knobs.buckets.set(group, { capacity: 1, refillPerSecond: 5 });
    }
    await Promise.all(Array.from({ length: 6 }, () => world.startPod()));
    assert.equal(world.zones.length, 6);
    await world.stopAll();
  });

  it("gives a VM that stays Creating to its pod, which may find it booted, and removes it with the pod", async () => {
    world.cloud.knobs.stuckCreations = 1;
    const id = await world.startPod();
    const record = await world.engine.store.sandboxes.get(id);
    assert.deepEqual([record?.phase, record?.instance?.addresses.length], ["booting", 1]);
    assert.equal(world.cloud.all("Microsoft.Compute/virtualMachines")[0]?.state, "Creating");
    await world.stopAll();
  });

  it("finds and removes what nobody owns: a VM, and an interface whose VM is gone", async () => {
    const other = await world.azure.provider();
    const spec = world.azure.spec();
    await other.createInstance(spec, background());
    const [nic] = world.cloud.all("Microsoft.Network/networkInterfaces");
    await world.untilEmpty();
    while ((await world.engine.store.operations.list({ states: ["queued", "running"] })).length > 0) await delay(20);
    assert.ok(nic !== undefined);
    world.cloud.put(Object.assign(nic, { vmId: undefined }));
    world.azure.clock.advance(121_000);
    await world.untilEmpty();
  });
});
