import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { AwsCloud } from "../harness/aws-cloud.ts";
import { Cri } from "../harness/cri.ts";
import { BUSYBOX } from "../harness/images.ts";
import { until } from "../harness/processes.ts";
import { World } from "../harness/world.ts";

describe("a pod on EC2, from the published disk", { timeout: 600_000 }, () => {
  let world: World;
  let cloud: AwsCloud;
  let cri: Cri;
  let pod: string;
  before(async () => {
    const subnets = ["subnet-0a1b2c3d4e5f6000a", "subnet-0a1b2c3d4e5f6000b"];
    world = await World.start({
      provider: "aws",
      cloudSettings: { dataVolumes: [{ sizeGiB: 3 }], externalSubnets: subnets },
    });
    assert.ok(world.cloud instanceof AwsCloud);
    cloud = world.cloud;
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    pod = await cri.runPod({ name: "pod" }, 300_000);
  });
  after(async () => {
    await cri.close();
    await world.close();
  });

  const account = () => cloud.ec2.endpoint.account;

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
    assert.equal(instance?.volumes.length, 2);
    assert.equal(instance.moreInterfaces.length, 1);
    assert.notEqual(instance.moreInterfaces[0]?.address, instance.networkInterface.address);
    const id = await cri.startContainer(pod, { name: "disks", image: BUSYBOX, command: ["sleep", "1000"] });
    const disks = await cri.execSync(id, ["sh", "-c", "cat /sys/block/nvme*/device/serial /sys/block/nvme*/size"]);
    const serials = instance.volumes.map((v) => v.id.replace("-", "")).sort();
    const lines = disks.stdout.split("\n").map((line) => line.trim());
    assert.deepEqual(lines.filter((line) => line.startsWith("vol")).sort(), serials, disks.stderr);
    assert.ok(lines.includes(String((3 * 1024 ** 3) / 512)), disks.stdout);
  });

  it("has tags on everything that it is made of", async () => {
    const [instance] = account().instances.values();
    assert.ok(instance !== undefined);
    for (const part of [instance, instance.networkInterface, ...instance.moreInterfaces, ...instance.volumes]) {
      assert.equal(part.tags.get("kata-remote:owner"), "kata-remote");
      assert.ok(part.tags.has("kata-remote:create-operation"));
    }
    // Told after the start, which does not wait for it.
    await until("the sandbox's tag", 30_000, () => instance.tags.has("kata-remote:sandbox"));
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

  it("costs one request to make and one to end, and leaves nothing but the image", async () => {
    const counted = new Set(["RunInstances", "TerminateInstances"]);
    await cri.removePod(pod);
    await world.untilNoVm();
    // A check of the account tries them without effect.
    const real = cloud.ec2.endpoint.requests.filter((r) => r.parameters.get("DryRun") !== "true");
    const sent = real.map((r) => r.action).filter((action) => counted.has(action));
    assert.deepEqual(sent, ["RunInstances", "TerminateInstances"]);
    const kinds = account().leftovers();
    assert.deepEqual(kinds.map((k) => k.kind).sort(), ["image", "snapshot"]);
  });
});
