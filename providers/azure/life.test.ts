import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { background } from "../../src/base/call.ts";
import { type InstanceId, newSandboxId } from "../../src/base/ids.ts";
import type { Instance, Provider } from "../../src/provider/index.ts";
import { AzureWorld, SEEDED } from "../../test/clouds/arm/index.ts";
import { deleteUntilGone, faultOf, settledInstance, until } from "./test-support.ts";

let world: AzureWorld;
let provider: Provider;
beforeEach(async () => {
  world = await AzureWorld.open();
  provider = await world.provider();
});
afterEach(() => world[Symbol.asyncDispose]());

const cloud = () => world.endpoint.cloud;
const vm = () => cloud().all("Microsoft.Compute/virtualMachines")[0];
const kinds = () =>
  cloud()
    .leftovers()
    .map((l) => l.kind)
    .sort();

async function made(from: Provider = provider): Promise<InstanceId> {
  const { id } = await from.createInstance(world.spec(), background());
  await settledInstance(from, id);
  return id;
}
const list = (from: Provider = provider): Promise<readonly Instance[]> => from.listInstances("c1", background());

/** Long enough for all that is kept to be read anew. */
const forget = (): void => world.clock.advance(121_000);

describe("a VM that comes to harm", () => {
  it("is gone when it was deleted from outside, in reads and in listings", async () => {
    const id = await made();
    const other = await world.provider();
    await deleteUntilGone(other, id);
    forget();
    assert.equal(await provider.getInstance(id, background()), undefined);
    assert.deepEqual(await list(), []);
  });

  for (const power of ["stopped", "deallocated"] as const) {
    it(`has failed when it is ${power}: a read says so at once, listings within some minutes`, async () => {
      const id = await made();
      Object.assign(vm() ?? {}, { power });
      await list();
      forget();
      assert.match((await provider.getInstance(id, background()))?.reason ?? "", new RegExp(power));
      world.clock.advance(300_000);
      const [listed] = await list();
      assert.equal(listed?.state, "failed");
      assert.match(listed?.reason ?? "", new RegExp(`${power}: it was switched off from outside`));
    });
  }

  it("runs all the same when Azure only misses its agent's word: it has none", async () => {
    const id = await made();
    const error = { code: "OSProvisioningTimedOut", message: "OS Provisioning did not finish in the allotted time" };
    Object.assign(vm() ?? {}, { state: "Failed", error, power: "running" });
    forget();
    assert.equal((await provider.getInstance(id, background()))?.state, "running");
    assert.equal((await list())[0]?.state, "running");
  });

  it("has failed with Azure's words when its creation did, in listings too", async () => {
    const id = await made();
    const error = { code: "InternalExecutionError", message: "An internal execution error occurred" };
    Object.assign(vm() ?? {}, { state: "Failed", error, power: "unknown" });
    forget();
    for (const seen of [await provider.getInstance(id, background()), (await list())[0]]) {
      assert.equal(seen?.state, "failed");
      assert.match(seen?.reason ?? "", /InternalExecutionError: An internal execution error/);
    }
  });

  it("is pending for as long as Azure is at it, and can be deleted all the same", async () => {
    cloud().knobs.stuckCreations = 1;
    const { id } = await provider.createInstance(world.spec(), background());
    forget();
    assert.equal((await provider.getInstance(id, background()))?.state, "pending");
    await deleteUntilGone(provider, id);
    assert.deepEqual(kinds(), []);
  });
});

describe("a deletion", () => {
  it("is asked for once and looked at less and less often", async () => {
    cloud().knobs.deleteMs = 400;
    const id = await made();
    world.takeActions();
    await deleteUntilGone(provider, id);
    const actions = world.takeActions();
    assert.equal(actions.filter((a) => a === "VirtualMachines_Delete").length, 1);
    assert.ok(actions.filter((a) => a === "VirtualMachines_Get").length <= 9, actions.join(" "));
  });

  it("is asked for again when it has failed", async () => {
    cloud().knobs.deleteMs = 3_600_000;
    const id = await made();
    assert.equal(await provider.deleteInstance(id, background()), "deleting");
    const there = vm();
    there?.operation?.abort(Object.assign(new Error("x"), { code: "InternalOperationError" }) as never, 0);
    Object.assign(there ?? {}, { state: "Failed", operation: undefined });
    cloud().knobs.deleteMs = 0;
    await deleteUntilGone(provider, id);
    assert.equal(world.endpoint.count("VirtualMachines_Delete"), 2);
    assert.deepEqual(kinds(), []);
  });

  it("whose answers are all lost is not waited for as if the young VM were yet to be shown", async () => {
    const hasty = await world.provider({ attempts: 1 });
    const { id } = await hasty.createInstance(world.spec(), background());
    cloud().knobs.deleteMs = 0;
    world.endpoint.inject({ action: "VirtualMachines_Delete", drop: true, afterEffect: true });
    await assert.rejects(hasty.deleteInstance(id, background()));
    assert.deepEqual([await hasty.getInstance(id, background()), await list(hasty)], [undefined, []]);
    const began = world.clock.now();
    await deleteUntilGone(hasty, id);
    assert.ok(world.clock.now() - began < 50_000, "it waited for the VM to be shown");
    assert.deepEqual(kinds(), []);
  });

  it("of a young VM that another adaptor has ended is over at once", async () => {
    const id = await made();
    await deleteUntilGone(await world.provider(), id);
    world.clock.advance(2_000);
    assert.equal(await provider.getInstance(id, background()).then((i) => i?.id), id, "it may be yet to be shown");
    const began = world.clock.now();
    await deleteUntilGone(provider, id);
    assert.ok(world.clock.now() - began < 20_000, "it waited for the VM to be shown");
    assert.deepEqual(await list(), []);
  });

  it("is none of a VM that a create request makes under that name later: another adaptor had stood still with it", async () => {
    const spec = world.spec();
    const { id } = await provider.createInstance(spec, background());
    await settledInstance(provider, id);
    await deleteUntilGone(provider, id);
    world.clock.advance(1000);
    const late = await world.provider();
    assert.equal((await late.createInstance(spec, background())).id, id);
    await settledInstance(late, id);
    assert.equal((await provider.getInstance(id, background()))?.id, id);
    await deleteUntilGone(provider, id);
    assert.deepEqual(kinds(), []);
  });

  it("goes on in a new process, and takes the end of a VM for what it is", async () => {
    cloud().knobs.deleteMs = 3_600_000;
    const id = await made();
    await provider.deleteInstance(id, background());
    const second = await world.provider();
    assert.equal((await second.getInstance(id, background()))?.state, "deleting");
    assert.equal(await second.deleteInstance(id, background()), "deleting");
    world.clock.advance(3_600_000);
    await deleteUntilGone(second, id);
    assert.equal(await second.getInstance(id, background()), undefined);
  });

  it("removes what is left of a VM that went without its parts", async () => {
    const id = await made();
    const there = vm();
    assert.ok(there !== undefined);
    for (const part of [...there.nics, there.osDisk]) Object.assign(part, { deleteOption: "Detach" });
    const other = await world.provider();
    await deleteUntilGone(other, id); // it trusts in the parts having gone: it saw the VM whole... or looks, when it did not
    forget();
    const left = await list();
    assert.ok(left.every((i) => i.id === id && i.state === "failed" && /is left$/.test(i.reason ?? "")));
    for (const { id: orphan } of left) await deleteUntilGone(provider, orphan);
    assert.deepEqual(kinds(), []);
  });

  it("costs nothing for a name that it cannot have given", async () => {
    world.takeActions();
    assert.equal(await provider.deleteInstance("i-0123456789abcdef0" as InstanceId, background()), "gone");
    assert.equal(await provider.getInstance("podvm" as InstanceId, background()), undefined);
    assert.deepEqual(world.takeActions(), []);
  });
});

describe("a listing", () => {
  it("shows what a VM that is gone has left behind as the instance that it was of, and its removal", async () => {
    const id = await made();
    const nic = cloud().all("Microsoft.Network/networkInterfaces")[0];
    await deleteUntilGone(provider, id);
    assert.ok(nic !== undefined);
    cloud().put(Object.assign(nic, { vmId: undefined }));
    forget();
    const [left] = await list();
    assert.deepEqual([left?.id, left?.state, left?.tags.cluster], [id, "failed", "c1"]);
    assert.deepEqual(await provider.getInstance(id, background()), left);
    assert.deepEqual(await (await world.provider()).getInstance(id, background()), left);
    assert.match(left?.reason ?? "", /its VM is gone, network interface .+-nic0.* is left/);
    await deleteUntilGone(provider, id);
    assert.equal(await provider.getInstance(id, background()), undefined);
    assert.deepEqual(kinds(), []);
  });

  it("does not take the parts of a VM that Azure does not show yet for what is left of one", async () => {
    cloud().knobs.hiddenLists = 5;
    cloud().knobs.hiddenReads = 5;
    const { id } = await provider.createInstance(world.spec(), background());
    for (const resource of cloud().resources.values()) {
      if (!resource.type.endsWith("virtualMachines")) Object.assign(resource, { hiddenLists: 0, hiddenReads: 0 });
    }
    const other = await world.provider(); // it has not made the VM
    assert.deepEqual(await list(other), []);
    assert.equal(await other.getInstance(id, background()), undefined);
  });

  it("is complete or none: a page that fails, in any of its lists, fails it", async () => {
    cloud().knobs.maxPage = 1;
    for (let i = 0; i < 3; i++) await made();
    const one = await world.provider({ attempts: 1 });
    for (const action of ["VirtualMachines_List", "NetworkInterfaces_List", "Disks_ListByResourceGroup"]) {
      for (const skip of [0, 1]) {
        await delay(100); // the other lists of the one before are over
        world.endpoint.inject({ action, skip, error: { code: "InternalServerError", message: "x" } });
        assert.equal((await faultOf(list(one))).code, "unavailable", `${action} ${skip}`);
      }
    }
    assert.equal((await list(one)).length, 3);
  });

  it("is shared by all who ask at about the same time", async () => {
    await made();
    world.takeActions();
    await Promise.all([list(), list(), provider.listInstances("other", background())]);
    assert.equal(world.takeActions().filter((a) => a === "VirtualMachines_List").length, 1);
  });

  it("does not show other clusters' VMs, and nothing of who is not kata-remote", async () => {
    const id = await made();
    vm()?.tags?.set("kata-remote:owner", "somebody");
    forget();
    assert.deepEqual(await list(), []);
    vm()?.tags?.set("kata-remote:owner", "kata-remote");
    assert.deepEqual(
      (await list()).map((i) => i.id),
      [id],
    );
    assert.deepEqual(await provider.listInstances("c", background()), []);
  });
});

describe("an assignment", () => {
  it("is put on the VM's tags once a listing shows it made, and costs one request", async () => {
    cloud().knobs.createMs = 3_600_000;
    const sandboxId = newSandboxId();
    const { id } = await provider.createInstance(world.spec(), background());
    await provider.batches?.assign(id, { name: "podvm-mine", sandboxId, nodeId: "worker-1" }, background());
    await list(); // it is being made: Azure would refuse
    assert.equal(world.endpoint.count("VirtualMachines_Update"), 0);
    world.clock.advance(3_600_001);
    await list();
    await until(() => world.endpoint.count("VirtualMachines_Update") === 1);
    const [listed] = await list();
    assert.equal(listed?.name, "podvm-mine");
    assert.deepEqual(listed?.assigned, { sandboxId, nodeId: "worker-1" });
    assert.equal(listed?.tags.cluster, "c1");
    assert.equal(world.endpoint.count("VirtualMachines_Update"), 1);
  });

  it("is given up when Azure does not allow it", async () => {
    const id = await made();
    const assignment = { name: "podvm-mine", sandboxId: newSandboxId(), nodeId: "worker-1" };
    world.endpoint.inject({
      action: "VirtualMachines_Update",
      error: { code: "AuthorizationFailed", message: "x", status: 403 },
    });
    await provider.batches?.assign(id, assignment, background());
    await list();
    await until(() => world.endpoint.count("VirtualMachines_Update") === 1);
    await until(
      async () =>
        (await faultOf(provider.batches?.assign(id, assignment, background()) ?? Promise.resolve())).code ===
        "permission_denied",
    );
  });
});

describe("the serial console", () => {
  it("is read where Azure says that its log is, at most once in two seconds", async () => {
    const id = await made();
    Object.assign(vm() ?? {}, { console: "boot\nkata-remote: guest key sha256:aa\n" });
    world.takeActions();
    for (let i = 0; i < 5; i++) assert.match((await provider.consoleOutput(id, 1000, background())) ?? "", /guest key/);
    assert.deepEqual(world.takeActions(), ["VirtualMachines_RetrieveBootDiagnosticsData"]);
    assert.equal(await provider.consoleOutput(id, 3, background()), "aa\n");
    world.clock.advance(2001);
    Object.assign(vm() ?? {}, { console: "later\n" });
    assert.equal(await provider.consoleOutput(id, 1000, background()), "later\n");
    assert.deepEqual(world.takeActions(), []); // the address is still good
  });

  it("is none where it is switched off, and of a VM that is gone", async () => {
    const id = await made();
    const off = await world.provider({ bootDiagnostics: false });
    assert.equal(await off.consoleOutput(id, 100, background()), undefined);
    await deleteUntilGone(provider, id);
    world.clock.advance(300_000);
    assert.equal(await provider.consoleOutput(id, 100, background()), undefined);
  });
});

it("uses an image of the marketplace in its newest version, and a generalised one with a key", async () => {
  const other = await world.provider({ image: "podvm-publisher:podvm:cvm:latest", subnets: [SEEDED.subnet] });
  await made(other);
  assert.match(JSON.stringify(vm()?.properties), /"version":"1\.0\.0"/);
});
