import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { Instance, InstanceSpec, Provider } from "../../src/provider/index.ts";
import { AzureWorld, SEEDED } from "../../test/clouds/arm/index.ts";
import { deleteUntilGone, faultOf, settledInstance, until } from "./test-support.ts";

let world: AzureWorld;
beforeEach(async () => {
  world = await AzureWorld.open();
});
afterEach(() => world[Symbol.asyncDispose]());

const PUT = "VirtualMachines_CreateOrUpdate";
const vms = () => world.endpoint.cloud.all("Microsoft.Compute/virtualMachines");
const kinds = () =>
  world.endpoint.cloud
    .leftovers()
    .map((l) => l.kind)
    .sort();

/** As the adaptor makes a VM: at the place with that number. */
async function makeAt(provider: Provider, index: number, spec: InstanceSpec): Promise<readonly Instance[]> {
  const places = (await provider.batches?.places(spec, background())) ?? [];
  const place = places[index]?.key ?? "";
  return (
    (await provider.batches?.createInstances({ class: spec, count: 1, place, admitted: false }, background())) ?? []
  );
}

describe("a VM that is made", () => {
  it("is a confidential one, with tags on all its parts, that takes all of them with it", async () => {
    const provider = await world.provider({ tags: { team: "blue" }, publicIp: true, dataDisksGiB: [8] });
    const spec = world.spec();
    const { id } = await provider.createInstance(spec, background());
    const running = await settledInstance(provider, id);
    const [vm] = vms();
    assert.equal(vm?.name, id);
    assert.equal(Buffer.from(vm?.userData ?? "", "base64").toString(), Buffer.from(spec.userData).toString());
    const tags = {
      ...{ Name: spec.name, team: "blue", "kata-remote:cluster": "c1", "kata-remote:owner": "kata-remote" },
      ...{ "kata-remote:create-operation": spec.tags.createOperation, "kata-remote:created": spec.tags.created },
      "kata-remote:vm": id,
    };
    const resources = [...world.endpoint.cloud.resources.values()].filter((r) => !r.seeded);
    assert.deepEqual(resources.map((r) => r.type.split("/").at(-1)).sort(), [
      "disks",
      "disks",
      "networkInterfaces",
      "publicIPAddresses",
      "virtualMachines",
    ]);
    for (const part of resources) assert.deepEqual(Object.fromEntries(part.tags ?? []), tags, part.id);
    const [ip] = world.endpoint.cloud.all("Microsoft.Network/publicIPAddresses");
    assert.equal(running?.addresses[0], ip?.address);
    assert.ok(running?.addresses[1]?.startsWith("10.0.0."));
    await deleteUntilGone(provider, id);
    assert.deepEqual(kinds(), []);
  });

  it("costs one write and, once it is there, no more than a look at the VM and one at its interface", async () => {
    const provider = await world.provider();
    await makeAt(provider, 0, world.spec());
    const [first] = await provider.listInstances("c1", background());
    if (first !== undefined) await deleteUntilGone(provider, first.id);
    world.takeActions();
    const [made] = await makeAt(provider, 0, world.spec());
    assert.equal(made?.state, "running");
    assert.deepEqual(world.takeActions(), [PUT, "VirtualMachines_Get", "NetworkInterfaces_Get"]);
    await provider.getInstance(made.id, background());
    world.takeActions();
    await deleteUntilGone(provider, made.id);
    assert.deepEqual(world.takeActions(), ["VirtualMachines_Delete", "VirtualMachines_Get"]);
  });

  it("shares its looks with others: twenty are looked at with two listings", async () => {
    const provider = await world.provider({ coalesceMs: 100 });
    const made = await Promise.all(
      Array.from({ length: 20 }, () => provider.createInstance(world.spec(), background())),
    );
    world.clock.advance(1000);
    world.takeActions();
    const seen = await Promise.all(made.map(({ id }) => provider.getInstance(id, background())));
    assert.equal(new Set(seen.map((i) => i?.addresses[0])).size, 20);
    assert.deepEqual(world.takeActions().sort(), ["NetworkInterfaces_List", "VirtualMachines_List"]);
  });

  it("has a key that nobody has when Azure wants one, the same for all of a process", async () => {
    const provider = await world.provider({ image: SEEDED.image("generalized") });
    for (let i = 0; i < 2; i++) await provider.createInstance(world.spec(), background());
    const keys = world.endpoint.requests
      .filter((r) => r.action === PUT)
      .map((r) => /"keyData":"(ssh-rsa [A-Za-z0-9+/=]+)/.exec(JSON.stringify(r.body))?.[1]);
    assert.equal(new Set(keys).size, 1);
    assert.ok((keys[0]?.length ?? 0) > 300);
  });
});

describe("an operation", () => {
  for (const [when, afterEffect] of [
    ["before Azure has seen it", false],
    ["after it had its effect", true],
  ] as const) {
    it(`makes one VM when the answer is lost ${when}`, async () => {
      const provider = await world.provider();
      world.endpoint.inject({ action: PUT, drop: true, afterEffect, times: 2 });
      const { id } = await provider.createInstance(world.spec(), background());
      assert.deepEqual(
        vms().map((vm) => vm.name),
        [id],
      );
      assert.equal(world.endpoint.count(PUT), afterEffect ? 2 : 3);
    });
  }

  it("makes one VM when the process ends before it has the answer", async () => {
    const first = await world.provider({ attempts: 1 });
    world.endpoint.inject({ action: PUT, drop: true, afterEffect: true });
    const spec = world.spec();
    assert.equal((await faultOf(first.createInstance(spec, background()))).code, "unavailable");
    const second = await world.provider({ attempts: 1 });
    const made = await second.createInstance(spec, background());
    assert.deepEqual(
      vms().map((vm) => vm.name),
      [made.id],
    );
    assert.deepEqual({ ...made.tags }, spec.tags);
  });

  it("goes on when Azure does not show yet what it says that there is", async () => {
    const first = await world.provider({ attempts: 1 });
    world.endpoint.cloud.knobs.hiddenReads = 1;
    const spec = world.spec();
    await first.createInstance(spec, background());
    const second = await world.provider({ attempts: 1 });
    const fault = await faultOf(second.createInstance(spec, background()));
    assert.equal(fault.context.kind, "transient");
    assert.ok(fault.retryable);
    await second.createInstance(spec, background());
    assert.equal(vms().length, 1);
  });

  it("makes no second VM when the first has ended", async () => {
    const provider = await world.provider();
    const spec = world.spec();
    const { id } = await provider.createInstance(spec, background());
    await deleteUntilGone(provider, id);
    const fault = await faultOf(provider.createInstance(spec, background()));
    assert.equal(fault.code, "failed_precondition");
    assert.match(fault.message, /has ended/);
  });

  it("does not take a VM of its name that is another's", async () => {
    const provider = await world.provider();
    const spec = world.spec();
    await provider.createInstance(spec, background());
    vms()[0]?.tags?.set("kata-remote:create-operation", "op-other");
    assert.match((await faultOf(provider.createInstance(spec, background()))).message, /is not of op-/);
  });
});

describe("when there is no room", () => {
  it("says so though Azure has accepted the VM first, removes it, and the next place is free to be tried", async () => {
    const provider = await world.provider({ sizes: [] });
    world.endpoint.cloud.knobs.short.add("Standard_DC2as_v5/1");
    const fault = await faultOf(makeAt(provider, 0, world.spec()));
    assert.equal(fault.code, "resource_exhausted");
    assert.equal(fault.context.kind, "capacity");
    assert.ok(fault.retryable);
    assert.match(fault.fullMessage, /ZonalAllocationFailed/);
    await until(() => kinds().length === 0);
    const [made] = await makeAt(provider, 1, world.spec());
    assert.equal(made?.state, "running");
    assert.deepEqual(
      vms().map((vm) => vm.zones),
      [["2"]],
    );
  });

  it("says what is not offered, after one request", async () => {
    const provider = await world.provider();
    await provider.batches?.places(world.spec(), background()); // what it knows of sizes is of before
    world.endpoint.cloud.knobs.restricted.add("Standard_DC2as_v5/1");
    const fault = await faultOf(makeAt(provider, 0, world.spec()));
    assert.equal(fault.context.kind, "not-offered");
    assert.match(fault.message, /Standard_DC2as_v5 in zone 1/);
    assert.equal(world.endpoint.count(PUT), 1);
  });

  it("asks for nothing that the list of sizes says this subscription may not use", async () => {
    world.endpoint.cloud.knobs.restricted.add("Standard_DC2as_v5/1");
    const provider = await world.provider({ sizes: [] });
    const places = await provider.batches?.places(world.spec(), background());
    assert.deepEqual(
      places?.map((p) => p.text),
      ["Standard_DC2as_v5 in zone 2"],
    );
  });

  it("says a quota with its numbers, after one request", async () => {
    world.endpoint.cloud.knobs.quota.set("standardDCASv5Family", 3);
    const provider = await world.provider();
    await makeAt(provider, 0, world.spec());
    const fault = await faultOf(makeAt(provider, 0, world.spec()));
    assert.equal(fault.context.kind, "quota");
    assert.ok(!fault.retryable);
    assert.match(fault.message, /standardDCASv5Family Cores quota 2\/3 in westeurope, 2 more are needed/);
    assert.equal(world.endpoint.count(PUT), 2);
  });

  it("says that a subnet is full, and places in another one do not share that", async () => {
    const provider = await world.provider({ subnets: [SEEDED.smallSubnet, SEEDED.subnet], zones: ["1"], sizes: [] });
    world.endpoint.cloud.knobs.freeAddresses.set(SEEDED.smallSubnet.toLowerCase(), 0);
    const fault = await faultOf(makeAt(provider, 0, world.spec()));
    assert.equal(fault.context.kind, "subnet-full");
    const places = await provider.batches?.places(world.spec(), background());
    assert.notEqual(places?.[0]?.scopes["subnet-full"], places?.[1]?.scopes["subnet-full"]);
    assert.equal(places?.[0]?.scopes.capacity, places?.[1]?.scopes.capacity);
    assert.equal((await makeAt(provider, 1, world.spec()))[0]?.state, "running");
  });

  it("removes the interface that a refused creation leaves, as soon as Azure gives it free", async () => {
    const { knobs } = world.endpoint.cloud;
    const provider = await world.provider();
    await provider.batches?.places(world.spec(), background());
    knobs.orphanNics = true;
    knobs.restricted.add("Standard_DC2as_v5");
    await faultOf(makeAt(provider, 0, world.spec()));
    assert.deepEqual(kinds(), ["networkInterfaces"]);
    world.clock.advance(181_000);
    await until(() => kinds().length === 0);
  });

  it("gives all places of what may be used: zones, subnets and markets, smallest size first", async () => {
    const provider = await world.provider({
      market: "spot-then-regular",
      subnets: [SEEDED.subnet, SEEDED.smallSubnet],
    });
    const places = (await provider.batches?.places(world.spec({ vcpus: 4, memoryMiB: 0 }), background())) ?? [];
    assert.match(places[0]?.text ?? "", /^Standard_DC4as_v5 in zone 1 \(spot\)$/);
    assert.match(places.at(-1)?.text ?? "", /^Standard_DC16as_v5 in zone 2$/);
    assert.equal(places.length, 5 * 2 * 2 * 2);
  });
});

describe("when Azure throttles", () => {
  it("waits and repeats, and says after how long to come again when it does not end", async () => {
    const provider = await world.provider({ attempts: 2 });
    const error = { code: "TooManyRequests", message: "too many", status: 429, retryAfter: "3" };
    world.endpoint.inject({ action: PUT, times: 1, error: { ...error, retryAfter: "0" } });
    await provider.createInstance(world.spec(), background());
    world.endpoint.inject({ action: PUT, times: 2, error });
    const told: unknown[] = [];
    const pass = { answered: (answer: unknown) => told.push(answer) };
    provider.account?.useGate({ enter: async () => pass, admitted: () => pass });
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.equal(fault.code, "unavailable");
    assert.deepEqual([fault.context.kind, fault.context.retryAfterMs], ["throttled", 3000]);
    assert.deepEqual(
      told.filter((t) => (t as { kind: string }).kind === "throttled"),
      [
        { kind: "throttled", retryAfterMs: 3000 },
        { kind: "throttled", retryAfterMs: 3000 },
      ],
    );
    assert.equal(vms().length, 1);
  });
});

describe("what cannot be", () => {
  it("is user-data above 64 KiB of base64: refused before anything is asked for", async () => {
    const provider = await world.provider();
    const fault = await faultOf(provider.createInstance(world.spec({ userData: Buffer.alloc(49_153) }), background()));
    assert.equal(fault.code, "invalid_argument");
    assert.match(fault.message, /49153 bytes, 65540 as base64: Azure takes at most 65536/);
    assert.equal(world.endpoint.count(PUT), 0);
    await provider.createInstance(world.spec({ userData: Buffer.alloc(49_152) }), background());
  });

  it("is an image that pods may not choose", async () => {
    const provider = await world.provider({ images: [SEEDED.image("generalized")] });
    const fault = await faultOf(provider.createInstance(world.spec({ image: SEEDED.image("plain") }), background()));
    assert.equal(fault.code, "invalid_argument");
    assert.match(fault.message, /images\/kata-remote, .*images\/generalized/);
  });

  for (const [what, config, message] of [
    ["an image for plain VMs", { image: SEEDED.image("plain") }, /security type Standard.+ConfidentialVmSupported/],
    ["an image of generation 1", { image: SEEDED.image("generation-1") }, /generation 1/],
    ["an image for another processor", { image: SEEDED.image("arm") }, /is for arm64/],
    [
      "an image without a version",
      { image: SEEDED.image("empty"), tee: "none", trustedLaunch: false },
      /no version that can be used/,
    ],
    [
      "a version that is not there",
      { image: SEEDED.image("kata-remote", "7.0.0") },
      /no version 7\.0\.0 in westeurope/,
    ],
    ["an image that is not there", { image: SEEDED.image("nothing") }, /is not there or not shared/],
    [
      "a key for a specialised image",
      { sshPublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me" },
      /specialised and takes no key/,
    ],
    ["zones that no size has", { zones: ["3"], sizes: [], size: "Standard_DC2es_v5", tee: "tdx" }, undefined],
    [
      "zones that a size lacks",
      { zones: ["2"], sizes: [], size: "Standard_DC2es_v5", tee: "tdx" },
      /offered in providers\.azure\.zones 2/,
    ],
  ] as const) {
    it(`is ${what}${message === undefined ? " (but these)" : ": said with its name"}`, async () => {
      const provider = await world.provider(config);
      const making = provider.createInstance(world.spec(), background());
      if (message === undefined) return void (await making);
      const fault = await faultOf(making);
      assert.equal(fault.code, "failed_precondition");
      assert.match(fault.fullMessage, message);
    });
  }

  it("is a subnet that is not there", async () => {
    const provider = await world.provider({ subnets: [`${SEEDED.subnet}x`] });
    assert.equal((await faultOf(provider.createInstance(world.spec(), background()))).context.kind, "setup");
  });

  it("is a resource group that is not there", async () => {
    const provider = await world.provider({ resourceGroup: "nothing" });
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.deepEqual([fault.code, fault.context.azureCode], ["failed_precondition", "ResourceGroupNotFound"]);
    assert.equal((await faultOf(provider.listInstances("c1", background()))).context.kind, "setup");
  });

  for (const [config, message] of [
    [{ arch: "arm64" }, /tee "any" needs arch "x64"/],
    [{ image: "my image" }, /"my image" is no image's name/],
    [{ vTpm: false }, /vTpm/],
    [{ encryption: "disk" }, /needs secureBoot/],
    [{ tee: "none", encryption: "disk" }, /needs a tee/],
    [{ spotMaxPrice: 1 }, /spotMaxPrice/],
    [{ tags: { "KATA-REMOTE:vm": "x" } }, /tags cannot set KATA-REMOTE:vm/],
    [{ tags: { "a/b": "x" } }, /a\/b/],
    [{ location: "West Europe" }, /location/],
    [{ subnets: ["podvms"] }, /subnets/],
    [{ subnet: SEEDED.subnet }, /unknown key "subnet"/],
    [{ caFile: "/nowhere/ca.pem" }, /caFile \/nowhere\/ca\.pem cannot be read/],
  ] as const) {
    it(`is the configuration ${JSON.stringify(config)}`, async () => {
      const fault = await faultOf(world.provider(config));
      assert.equal(fault.code, "invalid_argument");
      assert.match(fault.message, message);
    });
  }
});
