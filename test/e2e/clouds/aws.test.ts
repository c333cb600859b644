import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CreateVolumeCommand, DeleteVolumeCommand, DescribeVolumesCommand, EC2Client } from "@aws-sdk/client-ec2";
import { TEST_CREDENTIALS } from "../../clouds/ec2/index.ts";
import { AwsCloud } from "../harness/aws-cloud.ts";
import { Cri } from "../harness/cri.ts";
import { BUSYBOX } from "../harness/images.ts";
import { until } from "../harness/processes.ts";
import { World } from "../harness/world.ts";

describe("a pod on EC2, from the published disk", { timeout: 900_000 }, () => {
  let world: World;
  let cloud: AwsCloud;
  let cri: Cri;
  let pod: string;
  /** Of an operator, or of a CSI driver. */
  let client: EC2Client;
  let volumeId: string;
  /** As a CSI driver leaves it for a pod of kubelet's. @returns where the container's mount comes from */
  function describeVolume(uid: string): string {
    const source = join(world.folder, "pods", uid, "volumes/kubernetes.io~csi/pvc-1/mount");
    mkdirSync(source, { recursive: true });
    const description = join(world.folder, "direct-volumes", Buffer.from(source).toString("base64url"));
    mkdirSync(description, { recursive: true });
    const info = { "volume-type": "block", device: volumeId, fstype: "ext4", metadata: { fsGroup: "2000" } };
    writeFileSync(join(description, "mountInfo.json"), JSON.stringify(info));
    return source;
  }
  before(async () => {
    const subnets = ["subnet-0a1b2c3d4e5f6000a", "subnet-0a1b2c3d4e5f6000b"];
    world = await World.start({
      provider: "aws",
      cloudSettings: { dataVolumes: [{ sizeGiB: 3 }], externalSubnets: subnets },
      shimOf: (folder) => ({ directVolumesDir: join(folder, "direct-volumes") }),
    });
    assert.ok(world.cloud instanceof AwsCloud);
    cloud = world.cloud;
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    const { region, subnets: places } = account();
    client = new EC2Client({ region, endpoint: cloud.ec2.endpoint.url, credentials: TEST_CREDENTIALS });
    const wanted = { AvailabilityZone: places[1]?.zone, Size: 2, VolumeType: "gp3" } as const;
    volumeId = (await client.send(new CreateVolumeCommand(wanted))).VolumeId ?? "";
    describeVolume("uid-pod");
    pod = await cri.runPod({ name: "pod" }, 300_000);
  });
  after(async () => {
    client.destroy();
    await cri.close();
    await world.close();
  });

  const account = () => cloud.ec2.endpoint.account;
  const untilFree = () =>
    until("the volume to be free again", 60_000, async () => {
      const { Volumes = [] } = await client.send(new DescribeVolumesCommand({ VolumeIds: [volumeId] }));
      return Volumes[0]?.State === "available";
    });

  it("was started by firmware from that disk, and by nothing else", async () => {
    const [vm] = world.vms();
    assert.ok(vm !== undefined && world.vms().length === 1);
    assert.doesNotMatch(vm.command, / -(kernel|initrd|append) /);
    const [instance] = account().instances.values();
    assert.equal(instance?.imageId, cloud.settings.imageId);
    const console = (await account().host?.console?.(instance?.id ?? "")) ?? "";
    assert.match(console, /BdsDxe: starting Boot/);
  });

  it("read its user-data through IMDSv2, and asked the metadata service for nothing else", () => {
    const [instance] = account().instances.values();
    assert.equal(instance?.metadata.tokens, "required");
    const asked = cloud.ec2.metadata.requests.map((r) => r.replace(`${instance?.id} `, ""));
    assert.deepEqual(asked, ["PUT /latest/api/token 200", "GET /latest/user-data 200"]);
  });

  it("has the data volume and the second interface that every VM is to have", async () => {
    const [instance] = account().instances.values();
    assert.equal(instance?.volumes.length, 3, "root, data volume and the pod's own");
    assert.equal(instance.moreInterfaces.length, 1);
    assert.notEqual(instance.moreInterfaces[0]?.address, instance.networkInterface.address);
    const id = await cri.startContainer(pod, { name: "disks", image: BUSYBOX, command: ["sleep", "1000"] });
    const read = "cat /sys/block/nvme*/device/serial /sys/block/nvme*/size /sys/block/dm-0/dm/name; df -k / | tail -1";
    const disks = await cri.execSync(id, ["sh", "-c", read]);
    const serials = instance.volumes.map((v) => v.id.replace("-", "")).sort();
    assert.equal(instance.volumes.filter((v) => v.deleteOnTermination).length, 2);
    const lines = disks.stdout.split("\n").map((line) => line.trim());
    assert.deepEqual(lines.filter((line) => line.startsWith("vol")).sort(), serials, disks.stderr);
    assert.ok(lines.includes(String((3 * 1024 ** 3) / 512)), disks.stdout);
    assert.ok(lines.includes("kata-scratch"), disks.stdout);
    // What the container writes goes to the data volume: the root disk has another size.
    const sizeKiB = Number(/\s(\d+)\s+\d+\s+\d+\s+\d+%/.exec(disks.stdout)?.[1]);
    assert.ok(sizeKiB > 2.7 * 1024 ** 2 && sizeKiB < 3 * 1024 ** 2, disks.stdout);
  });

  it("has tags on everything that it is made of", async () => {
    const [instance] = account().instances.values();
    assert.ok(instance !== undefined);
    const disks = instance.volumes.filter((v) => v.id !== volumeId);
    for (const part of [instance, instance.networkInterface, ...instance.moreInterfaces, ...disks]) {
      assert.equal(part.tags.get("kata-remote:owner"), "kata-remote");
      assert.ok(part.tags.has("kata-remote:create-operation"));
    }
    // Told after the start, which does not wait for it.
    await until("the sandbox's tag", 60_000, () => instance.tags.has("kata-remote:sandbox"));
  });

  it("was made where its volume is, which was empty and has a file system now", async () => {
    const [instance] = account().instances.values();
    assert.equal(instance?.subnet.zone, account().subnets[1]?.zone);
    const mounts = [{ containerPath: "/data", hostPath: describeVolume("uid-pod") }];
    const id = await cri.startContainer(pod, { name: "writer", image: BUSYBOX, command: ["sleep", "1000"], mounts });
    const write = "echo kept >/data/file; sync; stat -c %g:%a /data; grep ' /data ext4 ' /proc/mounts";
    const wrote = await cri.execSync(id, ["sh", "-c", write]);
    assert.match(wrote.stdout, /^2000:2775\n\S*nvme\S* \/data ext4 /, wrote.stderr);
  });

  it("is in the pod network: its host reaches it, and it reaches its host", async () => {
    const command = ["sh", "-c", "mkdir /page; echo from the pod >/page/index.html; httpd -f -p 8080 -h /page"];
    const id = await cri.startContainer(pod, { name: "server", image: BUSYBOX, command });
    const address = await cri.podAddress(pod);
    const got = await until(`an answer of ${address}`, 60_000, async () => {
      const url = `http://${address}:8080/index.html`;
      const response = await fetch(url, { signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
      return response === undefined ? undefined : await response.text();
    });
    assert.equal(got, "from the pod\n");
    const gateway = address.replace(/\d+$/, "1");
    const server = createServer((request, response) => response.end(`host sees ${request.socket.remoteAddress}\n`));
    await once(server.listen(0, gateway), "listening");
    const { port } = server.address() as { port: number };
    const answer = await cri.execSync(id, ["wget", "-q", "-O", "-", `http://${gateway}:${port}/`]);
    server.close();
    assert.equal(answer.stdout, `host sees ${address}\n`);
  });

  it("keeps the pod away from the metadata service, whose answers are for the VM only", async () => {
    const id = await cri.startContainer(pod, { name: "curious", image: BUSYBOX, command: ["sleep", "1000"] });
    const wget = ["timeout", "3", "wget", "-q", "-O", "-", "http://169.254.169.254/latest/meta-data/"];
    assert.notEqual((await cri.execSync(id, wget)).exitCode, 0);
    assert.equal(cloud.ec2.metadata.requests.length, 2);
  });

  it("leaves what it wrote on its volume to the next pod", { timeout: 400_000 }, async () => {
    await cri.removePod(pod);
    await world.untilNoVm();
    await untilFree();
    const mounts = [{ containerPath: "/data", hostPath: describeVolume("uid-next") }];
    pod = await cri.runPod({ name: "next" }, 300_000);
    const id = await cri.startContainer(pod, { name: "reader", image: BUSYBOX, command: ["sleep", "1000"], mounts });
    assert.equal((await cri.execSync(id, ["cat", "/data/file"])).stdout, "kept\n");
  });

  it("costs one request to make and one to end, with a volume two more, and leaves nothing but the image", async () => {
    const counted = new Set(["RunInstances", "TerminateInstances", "AttachVolume", "DetachVolume"]);
    await cri.removePod(pod);
    await world.untilNoVm();
    // A check of the account tries them without effect.
    const real = cloud.ec2.endpoint.requests.filter((r) => r.parameters.get("DryRun") !== "true");
    const sent = real.map((r) => r.action).filter((action) => counted.has(action));
    // While an instance does not run yet, EC2 takes no volumes.
    const once = sent.filter((action, i) => action !== "AttachVolume" || sent[i - 1] !== action);
    const each = ["RunInstances", "AttachVolume", "DetachVolume", "TerminateInstances"];
    assert.deepEqual(once, [...each, ...each]);
    await untilFree();
    await client.send(new DeleteVolumeCommand({ VolumeId: volumeId }));
    const kinds = account().leftovers();
    assert.deepEqual(kinds.map((k) => k.kind).sort(), ["image", "snapshot"]);
  });
});
