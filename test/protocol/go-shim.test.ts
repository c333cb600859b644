import assert from "node:assert/strict";
import { access, lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Fault } from "../../src/base/fault.ts";
import { VersionRequest, VersionResponse } from "../../src/gen/hypervisor/hypervisor.ts";
import { GetInfoRequest, GetInfoResponse } from "../../src/gen/hypervisor/podvminfo.ts";
import type { WireClient } from "./shim-wire.ts";
import { AGENT, createVm, HEALTH, newShimId, StockWorld, socketOf, startVm, stopVm } from "./world.ts";

const NOTHING = new Uint8Array();
const START_NANO = 600_000_000_000n;

/** As Go's shim starts a pod, up to its connection to the agent. */
async function start(world: StockWorld, id = newShimId()): Promise<{ id: string; agent: WireClient; path: string }> {
  const path = socketOf(await world.goCall("CreateVM", createVm(id)));
  assert.equal((await world.goCall("StartVM", startVm(id), { timeoutNano: START_NANO })).code, 0);
  return { id, agent: await world.dial(path), path };
}

describe("Go's shim", () => {
  it("starts a pod, calls its agent, and stops it; nothing is left", async () => {
    await using world = await StockWorld.open();
    const { id, agent, path } = await start(world);
    assert.equal(path, join(world.config.podsDir, id, "agent.ttrpc"));
    for (const socket of [path, world.config.socket]) assert.equal((await lstat(socket)).mode & 0o777, 0o600);
    const check = await agent.call(HEALTH, "Check", Buffer.from([0x0a, 0x00]));
    assert.deepEqual([...check.payload], [0x08, 0x01], "status SERVING");
    assert.equal((await agent.call(AGENT, "CreateSandbox", Buffer.from("x"))).code, 0);
    assert.equal(world.provider.only.forwarder.last("CreateSandbox")?.toString(), "x");
    const stopped = await world.goCall("StopVM", stopVm(id));
    assert.equal(stopped.body.length, 0, "an empty answer is no bytes: no status, no payload");
    await world.until("VM gone", () => world.provider.machines.size === 0);
    await world.until("state gone", async () => (await readdir(join(world.dir, "run", "stock"))).length === 0);
    await assert.rejects(access(join(world.config.podsDir, id)), { code: "ENOENT" });
    assert.deepEqual([...world.network.taken], []);
    assert.ok(world.network.calls.some((call) => call.startsWith("detach ")));
  });

  it("gets the same socket for an id that is there, without a look at the pod's network", async () => {
    await using world = await StockWorld.open();
    const { id, path } = await start(world);
    world.network.beforeInspect = async () => Promise.reject(new Error("the namespace is gone"));
    assert.equal(socketOf(await world.goCall("CreateVM", createVm(id))), path);
    assert.equal(world.provider.created, 1);
  });

  it("gets a new VM for an id that was stopped", async () => {
    await using world = await StockWorld.open();
    const { id } = await start(world);
    await world.goCall("StopVM", stopVm(id));
    await start(world, id);
    await world.until("the first VM gone", () => world.provider.machines.size === 1);
    assert.equal(world.provider.created, 2);
  });

  it("may stop what is unknown or stopped already", async () => {
    await using world = await StockWorld.open();
    assert.equal((await world.goCall("StopVM", stopVm(newShimId()))).code, 0);
    const { id } = await start(world);
    assert.equal((await world.goCall("StopVM", stopVm(id))).code, 0);
    assert.equal((await world.goCall("StopVM", stopVm(id))).code, 0);
  });

  it("may go away while a VM starts: the next StartVM joins, and one VM is made", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    const path = socketOf(await world.goCall("CreateVM", createVm(id)));
    world.provider.knobs.createLatencyMs = 300;
    const killed = await world.dial();
    const lost = killed.call("hypervisor.Hypervisor", "StartVM", startVm(id));
    await new Promise((resolve) => setTimeout(resolve, 100));
    killed.close();
    await assert.rejects(lost);
    assert.equal((await world.goCall("StartVM", startVm(id))).code, 0);
    assert.equal((await (await world.dial(path)).call(HEALTH, "Check", NOTHING)).code, 0);
    assert.equal(world.provider.created, 1);
  });

  it("stops a VM while it starts: the start fails, the VM goes", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id));
    world.provider.knobs.createLatencyMs = 500;
    const starting = world.goCall("StartVM", startVm(id));
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.equal((await world.goCall("StopVM", stopVm(id))).code, 0);
    assert.notEqual((await starting).code, 0);
    await world.until("no VM", () => world.provider.machines.size === 0);
    await world.until("no pod", () => world.door.podCount === 0);
  });

  it("is told why a start failed, and the VM does not stay", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id));
    world.provider.knobs.createFaults.push(new Fault("invalid_argument", "no such instance type"));
    const reply = await world.goCall("StartVM", startVm(id));
    assert.match(reply.message, /no such instance type/);
    await world.until("no pod, though nobody sent StopVM", () => world.door.podCount === 0);
    await world.until("no VM", () => world.provider.machines.size === 0);
  });

  it("must say whose pod it is; StartVM needs CreateVM", async () => {
    await using world = await StockWorld.open();
    const nameless = await world.goCall("CreateVM", createVm(newShimId(), { "io.kubernetes.cri.sandbox-name": "" }));
    assert.equal(nameless.code, 3);
    assert.match(nameless.message, /io\.kubernetes\.cri\.sandbox-name/);
    const early = await world.goCall("StartVM", startVm("unknown"));
    assert.equal(early.code, 5);
    assert.match(early.message, /sandbox unknown does not exist/);
  });

  it("is answered Version and Unimplemented as by the stock adaptor", async () => {
    await using world = await StockWorld.open();
    const version = await world.goCall("Version", VersionRequest.encode({ version: "1" }).finish());
    assert.equal(VersionResponse.decode(version.payload).version, "0.0.0");
    const method = await world.goCall("Pause", NOTHING);
    assert.deepEqual([method.code, method.message], [12, "method Pause"]);
    const service = await (await world.dial()).call("x.Y", "Z", NOTHING);
    assert.deepEqual([service.code, service.message], [12, "service x.Y"]);
  });

  it("that was killed sends no StopVM: its pod is stopped a while after its last connection", async () => {
    await using world = await StockWorld.open({ orphanMs: 10_000 });
    const { agent } = await start(world);
    Object.assign(world.config, { orphanMs: 300 }); // less than a configuration may say
    await new Promise((resolve) => setTimeout(resolve, 600));
    assert.equal(world.provider.machines.size, 1, "as long as it is connected it is its pod's");
    agent.close();
    await world.until("VM gone", () => world.provider.machines.size === 0);
    await world.until("no pod", () => world.door.podCount === 0);
  });

  it("comes back after the node daemon restarted: its pod is taken up, and can be stopped", async () => {
    await using world = await StockWorld.open();
    const { id, path } = await start(world);
    await world.stopNode();
    await world.startNode();
    await world.until("the agent's socket", () =>
      access(path).then(
        () => true,
        () => false,
      ),
    );
    const again = await world.dial(path);
    assert.equal((await again.call(HEALTH, "Check", NOTHING)).code, 0);
    assert.equal((await world.goCall("StopVM", stopVm(id))).code, 0);
    await world.until("VM gone", () => world.provider.machines.size === 0);
  });
});

describe("podvminfo.PodVMInfo", () => {
  const ask = async (world: StockWorld, wait: boolean, timeoutNano = 0n) =>
    (await world.dial()).call(
      "podvminfo.PodVMInfo",
      "GetInfo",
      GetInfoRequest.encode(
        GetInfoRequest.fromPartial({ PodName: "web", PodNamespace: "default", Wait: wait }),
      ).finish(),
      { timeoutNano },
    );

  it("names a pod's instance", async () => {
    await using world = await StockWorld.open();
    const missing = await ask(world, false);
    assert.deepEqual([missing.code, missing.message], [5, "VM ID for default:web was not found"]);
    const late = await ask(world, true, 50_000_000n);
    assert.equal(late.code, 4);
    const waiting = ask(world, true);
    await start(world);
    assert.match(GetInfoResponse.decode((await waiting).payload).VMID, /^zero-/);
    assert.match(GetInfoResponse.decode((await ask(world, false)).payload).VMID, /^zero-/);
  });
});
