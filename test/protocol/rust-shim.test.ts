import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { AGENT, createVm, HEALTH, HYPERVISOR, newShimId, StockWorld, socketOf, startVm, stopVm } from "./world.ts";

const HYPERVISOR_KEY = "io.katacontainers.config.hypervisor";
/** It always sends numbers, and writes them as floats. Source: wire contract §3.2. */
const FLOATS = { [`${HYPERVISOR_KEY}.default_vcpus`]: "1.5", [`${HYPERVISOR_KEY}.default_memory`]: "2048" };

describe("the Rust shim", () => {
  it("makes all its calls on one connection, and keeps a second one to the agent on which it says nothing", async () => {
    await using world = await StockWorld.open();
    const hypervisor = await world.dial();
    const id = newShimId();
    const path = socketOf(await hypervisor.call(HYPERVISOR, "CreateVM", createVm(id, FLOATS)));
    assert.equal(
      (await hypervisor.call(HYPERVISOR, "StartVM", startVm(id), { timeoutNano: 10_000_000_000_000n })).code,
      0,
    );
    const logs = connect(path); // its log forwarder
    const agent = await world.dial(path);
    assert.equal((await agent.call(HEALTH, "Check", new Uint8Array())).code, 0);
    assert.equal((await agent.call(AGENT, "CreateSandbox", new Uint8Array())).code, 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(logs.destroyed, false);
    assert.equal(agent.closed, false);
    assert.equal((await hypervisor.call(HYPERVISOR, "StopVM", stopVm(id), { timeoutNano: 1_000_000_000n })).code, 0);
    logs.destroy();
  });

  it("has its float sizes taken, rounded up where VMs have whole CPUs", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id, FLOATS));
    await world.goCall("StartVM", startVm(id));
    const [spec] = world.provider.specs;
    assert.equal(spec?.vcpus, 2);
    assert.ok((spec?.memoryMiB ?? 0) >= 2048);
  });

  it('has Go\'s "0" taken as "nobody asked", and nonsense refused by its name', async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id));
    await world.goCall("StartVM", startVm(id));
    assert.equal(world.provider.specs[0]?.vcpus, 0, "the provider's default");
    const odd = await world.goCall("CreateVM", createVm(newShimId(), { [`${HYPERVISOR_KEY}.default_vcpus`]: "many" }));
    assert.equal(odd.code, 3);
    assert.match(odd.message, /default_vcpus = "many"/);
  });

  it("is answered StopVM within its second though the cloud takes longer, and the VM still goes", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id, FLOATS));
    await world.goCall("StartVM", startVm(id));
    world.provider.knobs.pollsToGone = 30;
    await world.stopAdaptor(); // nobody takes the stop for now
    const begun = performance.now();
    const reply = await world.goCall("StopVM", stopVm(id), { timeoutNano: 1_000_000_000n });
    assert.equal(reply.code, 0);
    assert.ok(performance.now() - begun < 1000, "in its second");
    await world.startAdaptor();
    await world.until("VM gone", () => world.provider.machines.size === 0, 20_000);
  });
});
