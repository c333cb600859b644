import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ShimFixture, until } from "../../../test/fakes/shim.ts";
import { background } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parsePlan } from "../../podnetwork/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

const NETNS = "/run/netns/cni-1";
const netns = (base: Record<string, unknown>) => {
  const { namespaces } = base.linux as { namespaces: { type: string }[] };
  const named = namespaces.map((n) => (n.type === "network" ? { ...n, path: NETNS } : n));
  return { ...base, linux: { namespaces: named } };
};

describe("a pod with a network namespace", () => {
  it("has its network carried over before it is connected, and taken down before its VM", async () => {
    const order = f.network.calls;
    f.hypervisor.beforeCreate = async () => void order.push("createVm");
    f.hypervisor.beforeStop = async () => void order.push("stopVm");
    f.relay.beforeConnect = async () => void order.push("connect");
    await f.task().create(await f.createRequest("c", netns));
    const plan = parsePlan(JSON.parse(f.relay.guestSpecs[0]?.podNetworkJson ?? ""), "the plan that the guest gets");
    assert.deepEqual(plan.tunnel, { kind: "vxlan", port: 4789, workerAddress: "192.0.2.9", vnis: [7] });
    await f.task().delete({ id: "c", execId: "" });
    await until(() => f.shim.sandboxCount() === 0);
    assert.deepEqual(order, [
      `inspect ${NETNS}`,
      "createVm",
      `attach ${NETNS} to 192.0.2.1`,
      "connect",
      `detach ${NETNS}`,
      "stopVm",
      "release",
    ]);
  });

  it("has its tunnel completed with the key that its guest answers", async () => {
    const key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    const inside = { port: 4789, workerAddress: "192.0.0.2", guestAddress: "192.0.0.3", vnis: [1] };
    f.network.tunnel = { kind: "wireguard", ...inside, listenPort: 4789, workerKey: key, linkMtu: 1440 };
    f.relay.guestFacts = { ...f.relay.guestFacts, tunnelKey: key };
    f.relay.beforeConnect = async () => void f.network.calls.push("connect");
    await f.task().create(await f.createRequest("c", netns));
    assert.deepEqual(f.network.calls.slice(-2), ["connect", `complete ${NETNS} with ${key}`]);
  });

  it("costs no VM when its network cannot be carried over", async () => {
    f.network.beforeInspect = async () => {
      throw new Fault("failed_precondition", "two next hops");
    };
    await assert.rejects(f.task().create(await f.createRequest("c", netns)), {
      message: /cannot read the pod's network: two next hops/,
    });
    await until(() => f.shim.sandboxCount() === 0);
    assert.deepEqual(f.hypervisor.requests, []);
  });

  it("has its VM stopped even if the network is not taken down, which is tried again", async () => {
    await f.task().create(await f.createRequest("c", netns));
    let failures = 1;
    f.network.beforeDetach = async () => {
      if (failures-- > 0) throw new Fault("unavailable", "iptables is busy");
    };
    await f.task().delete({ id: "c", execId: "" });
    await until(() => f.network.calls.includes("release"));
    assert.deepEqual(f.network.calls.slice(-3), [`detach ${NETNS}`, `detach ${NETNS}`, "release"]);
    assert.equal(f.hypervisor.stopped.length, 2, "stopping is repeatable");
  });

  it("is taken down by the next daemon, which keeps its numbers until the VM is stopped", async () => {
    await f.task().create(await f.createRequest("c", netns));
    f.network.taken.add("of nobody");
    f.network.calls.length = 0;
    let takenAtStop = 0;
    f.hypervisor.beforeStop = async () => {
      takenAtStop = f.network.taken.size;
    };
    await f.newShim().recover(background());
    assert.deepEqual(f.network.calls, [`detach ${NETNS}`, "release"]);
    assert.deepEqual([takenAtStop, f.network.taken.size], [1, 0]);
  });
});

describe("a container without one", () => {
  it("has no network", async () => {
    await f.task().create(await f.createRequest("c"));
    assert.deepEqual(f.network.calls, []);
    assert.equal(f.relay.guestSpecs[0]?.podNetworkJson, undefined);
  });
});
