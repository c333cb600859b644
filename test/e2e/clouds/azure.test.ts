import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { AzureCloud } from "../harness/azure-cloud.ts";
import { Cri } from "../harness/cri.ts";
import { BUSYBOX } from "../harness/images.ts";
import { until } from "../harness/processes.ts";
import { World } from "../harness/world.ts";

const VM = "Microsoft.Compute/virtualMachines";
const OWNED = ["VirtualMachines_CreateOrUpdate", "VirtualMachines_Delete", "NetworkInterfaces_Delete", "Disks_Delete"];

describe("a pod on Azure, from the published disk", { timeout: 600_000 }, () => {
  let world: World;
  let cloud: AzureCloud;
  let cri: Cri;
  let pod: string;
  before(async () => {
    world = await World.start({ provider: "azure" });
    assert.ok(world.cloud instanceof AzureCloud);
    cloud = world.cloud;
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    pod = await cri.runPod({ name: "pod" }, 300_000);
  });
  after(async () => {
    await cri.close();
    await world.close();
  });

  const subscription = () => cloud.arm.endpoint.cloud;
  const machine = () => {
    const [vm] = subscription().all(VM);
    assert.ok(vm !== undefined);
    return vm;
  };

  it("was started by firmware from that disk, as a confidential VM, and by nothing else", async () => {
    const [vm] = world.vms();
    assert.ok(vm !== undefined && world.vms().length === 1);
    assert.doesNotMatch(vm.command, / -(kernel|initrd|append) /);
    const { properties, id, size } = machine();
    assert.equal(size.confidential, "SNP");
    assert.deepEqual(properties.securityProfile, {
      securityType: "ConfidentialVM",
      uefiSettings: { secureBootEnabled: false, vTpmEnabled: true },
    });
    assert.match(JSON.stringify(properties.storageProfile), new RegExp(`"id":"${String(cloud.settings.image)}"`, "i"));
    assert.match((await subscription().host?.console?.(id)) ?? "", /BdsDxe: starting Boot/);
  });

  it("read its user-data through the metadata service, and asked it for nothing else", () => {
    const { requests } = cloud.arm.endpoint.metadata;
    const imds = requests.filter((r) => r.path.startsWith("/metadata"));
    assert.deepEqual(
      imds.map((r) => [r.vmId, r.path, r.status]),
      [[machine().id, "/metadata/instance/compute/userData?api-version=2021-01-01&format=text", 200]],
    );
  });

  it("has tags on everything that it is made of", () => {
    const { nics, osDisk, tags } = machine();
    const parts = [
      tags,
      ...nics.map(({ id }) => subscription().find("Microsoft.Network/networkInterfaces", id)?.tags),
      subscription().find("Microsoft.Compute/disks", osDisk.id)?.tags,
    ];
    assert.equal(parts.length, 3);
    // The VM's name is what a pod is given, later than its parts.
    const of = (part: ReadonlyMap<string, string> | undefined) =>
      [...(part ?? [])]
        .filter(([name]) => /^kata-remote:(cluster|create-operation|created|owner|vm)$/.test(name))
        .sort();
    for (const part of parts) assert.deepEqual(of(part), of(tags));
    for (const part of parts) assert.match(JSON.stringify(of(part)), /create-operation.*kata-remote/);
  });

  it("keeps the pod away from the metadata service, whose answers are for the VM only", async () => {
    const id = await cri.startContainer(pod, { name: "curious", image: BUSYBOX, command: ["sleep", "1000"] });
    const before = cloud.arm.endpoint.metadata.requests.length;
    const url = "http://169.254.169.254/metadata/instance?api-version=2021-02-01";
    const wget = ["timeout", "3", "wget", "-q", "-O", "-", "--header", "Metadata: true", url];
    assert.notEqual((await cri.execSync(id, wget)).exitCode, 0);
    assert.equal(cloud.arm.endpoint.metadata.requests.length, before);
  });

  it("costs one request to make and one to end, and leaves nothing but the image", async () => {
    await cri.removePod(pod);
    await world.untilNoVm();
    const sent = cloud.arm.endpoint.requests.map((r) => r.action).filter((action) => OWNED.includes(action));
    assert.deepEqual(sent.slice(-2), ["VirtualMachines_CreateOrUpdate", "VirtualMachines_Delete"]);
    const parts = /^(virtualMachines|networkInterfaces|publicIPAddresses)$/;
    const left = () =>
      subscription()
        .leftovers()
        .filter(({ kind }) => parts.test(kind));
    await until(
      "the VM's parts to be gone",
      60_000,
      () => left().length === 0,
      () => JSON.stringify(left()),
    );
    const disks = subscription().all("Microsoft.Compute/disks");
    assert.deepEqual(
      disks.filter((d) => d.vmId !== undefined || /-os$/.test(d.name)).map((d) => d.id),
      [],
    );
  });
});
