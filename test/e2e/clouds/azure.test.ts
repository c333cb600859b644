import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { ClientSecretCredential } from "@azure/identity";
import { trustInThisProcess } from "../../clouds/arm/index.ts";
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
  let source: string;
  before(async () => {
    world = await World.start({
      provider: "azure",
      cloudSettings: { dataDisksGiB: [3] },
      shimOf: (folder) => ({ directVolumesDir: join(folder, "direct-volumes") }),
    });
    assert.ok(world.cloud instanceof AzureCloud);
    cloud = world.cloud;
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    source = await describeVolume("uid-pod", await makeDisk("kept", 5));
    pod = await cri.runPod({ name: "pod" }, 300_000);
  });
  after(async () => {
    await cri.close();
    await world.close();
  });

  const disks = () => {
    const { url, tenant, certificates } = cloud.arm.endpoint;
    trustInThisProcess(certificates.ca);
    const { clientId, secret } = tenant.application;
    const authority = { authorityHost: url, disableInstanceDiscovery: true };
    const credential = new ClientSecretCredential(tenant.id, clientId, secret, authority);
    return new ComputeManagementClient(credential, subscription().id, { endpoint: url }).disks;
  };
  /** As an operator or a CSI driver does it. */
  async function makeDisk(name: string, diskSizeGB: number): Promise<string> {
    const body = {
      ...{ location: "westeurope", zones: ["2"], sku: { name: "StandardSSD_LRS" }, diskSizeGB },
      creationData: { createOption: "Empty" },
    };
    await disks().createOrUpdate("pods", name, body).submitted();
    return (await disks().get("pods", name)).id ?? "";
  }
  /** As a CSI driver leaves it for a pod of kubelet's. @returns where the container's mount comes from */
  async function describeVolume(uid: string, diskId: string): Promise<string> {
    const mount = join(world.folder, "pods", uid, "volumes/kubernetes.io~csi/pvc-1/mount");
    await mkdir(mount, { recursive: true });
    const description = join(world.folder, "direct-volumes", Buffer.from(mount).toString("base64url"));
    await mkdir(description, { recursive: true });
    const info = { "volume-type": "block", device: "unknown", metadata: { "cloud-volume-path": diskId } };
    await writeFile(join(description, "mountInfo.json"), JSON.stringify(info));
    return mount;
  }

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

  it("writes to its data disk, and to the disk that outlives it, larger and as empty as that was, what it mounts", async () => {
    assert.deepEqual(machine().zones, ["2"]);
    const mounts = [{ containerPath: "/data", hostPath: source }];
    const id = await cri.startContainer(pod, { name: "disks", image: BUSYBOX, command: ["sleep", "1000"], mounts });
    const script = "cat /sys/block/dm-0/dm/name; ls /sys/block/dm-0/slaves; df -k / /data | tail -2";
    const { stdout, stderr } = await cri.execSync(id, ["sh", "-c", script]);
    const [name, slave, ...sizes] = stdout.split("\n");
    assert.equal(name, "kata-scratch", stdout + stderr);
    const gib = sizes.map((line) => Math.round(Number(/\s(\d+)\s+\d+\s+\d+\s+\d+%/.exec(line)?.[1]) / 1024 ** 2));
    assert.deepEqual(gib.slice(0, 2), [3, 5], stdout);
    const mounted = await cri.execSync(id, ["sh", "-c", "echo kept >/data/file; grep ' /data ext4 ' /proc/mounts"]);
    assert.doesNotMatch(mounted.stdout, new RegExp(`/dev/${slave} `));
    assert.match(mounted.stdout, /^\/dev\/sd[a-z] \/data ext4 /);
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
    assert.deepEqual(
      subscription()
        .all("Microsoft.Compute/disks")
        .filter((d) => d.vmId !== undefined || /-(os|data\d)$/.test(d.name))
        .map((d) => d.id),
      [],
    );
    assert.equal((await disks().get("pods", "kept")).diskState, "Unattached");
    await disks().delete("pods", "kept").submitted();
  });
});
