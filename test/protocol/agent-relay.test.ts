import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { CreateContainerRequest } from "../../src/gen/agent/agent.ts";
import { Code, StatusError } from "../../src/ttrpc/index.ts";
import type { WireClient } from "./shim-wire.ts";
import { AGENT, createVm, HEALTH, newShimId, StockWorld, socketOf, startVm } from "./world.ts";

async function withAgent(world: StockWorld): Promise<WireClient> {
  const id = newShimId();
  const path = socketOf(await world.goCall("CreateVM", createVm(id)));
  const started = await world.goCall("StartVM", startVm(id));
  assert.equal(started.code, 0, started.message);
  return world.dial(path);
}

/** Fields that no agent knows: a string in field 1000, and one inside of OCI. */
const UNKNOWN = Buffer.from([0xc2, 0x3e, 0x03, 0x61, 0x62, 0x63]);

describe("the agent relay", () => {
  it("passes every method on as the bytes it got, unknown fields, methods and services too", async () => {
    await using world = await StockWorld.open();
    const agent = await withAgent(world);
    const { forwarder } = world.provider.only;
    const payload = Buffer.concat([Buffer.from([0x0a, 0x02, 0x69, 0x64]), UNKNOWN]);
    for (const method of ["StartContainer", "GetOOMEvent", "MemAgentCompactSet", "RemoveStaleVirtiofsShareMounts"]) {
      assert.equal((await agent.call(AGENT, method, payload)).code, 0, method);
      assert.deepEqual(forwarder.last(method), payload, method);
    }
    forwarder.answers.set("GetGuestDetails", async () => UNKNOWN);
    assert.deepEqual((await agent.call(AGENT, "GetGuestDetails", payload)).payload, UNKNOWN);
    const method = await agent.call(AGENT, "NewInSixMonths", payload);
    assert.deepEqual([method.code, method.message], [12, "method NewInSixMonths"], "the forwarder's own words");
    const service = await agent.call("grpc.New", "Thing", payload);
    assert.deepEqual([service.code, service.message], [12, "service grpc.New"]);
  });

  it("keeps the deadline's rest and the metadata, and adds none; status and details come back as they were", async () => {
    await using world = await StockWorld.open();
    const agent = await withAgent(world);
    const { forwarder } = world.provider.only;
    const detail = { typeUrl: "types.x/y", value: Buffer.from([1, 2, 3]) };
    forwarder.answers.set("ExecProcess", async () => {
      throw new StatusError(Code.permissionDenied, "ExecProcessRequest is blocked by policy", [detail]);
    });
    const metadata = [
      ["trace", "a"],
      ["trace", "b"],
    ] as const;
    const reply = await agent.call(AGENT, "ExecProcess", new Uint8Array(), { timeoutNano: 5_000_000_000n, metadata });
    assert.equal(reply.code, 7);
    assert.equal(reply.message, "ExecProcessRequest is blocked by policy");
    assert.equal(reply.details[0]?.typeUrl, detail.typeUrl);
    assert.deepEqual(Buffer.from(reply.details[0]?.value ?? []), detail.value);
    const call = forwarder.requests.at(-1)?.call;
    assert.deepEqual(call?.metadata, metadata);
    assert.ok((call?.timeoutMs ?? 0) > 4000 && (call?.timeoutMs ?? 0) <= 5000, `${call?.timeoutMs}`);
    await agent.call(AGENT, "StatsContainer", new Uint8Array());
    assert.equal(forwarder.requests.at(-1)?.call.timeoutMs, undefined, "no deadline is none");
  });

  it("answers in any order: a call that waits for ever holds nobody up", async () => {
    await using world = await StockWorld.open();
    const agent = await withAgent(world);
    world.provider.only.forwarder.answers.set("WaitProcess", () => new Promise(() => undefined));
    agent.call(AGENT, "WaitProcess", new Uint8Array()).catch(() => undefined);
    assert.equal((await agent.call(HEALTH, "Check", new Uint8Array())).code, 0);
  });

  it("does not let the shim notice that the path to the VM broke: what waits goes on, nothing is done twice", async () => {
    await using world = await StockWorld.open();
    const agent = await withAgent(world);
    const { forwarder, path } = world.provider.only;
    let over: (reply: Uint8Array) => void = () => undefined;
    forwarder.answers.set("WaitProcess", () => new Promise((resolve) => (over = resolve)));
    forwarder.answers.set("StartContainer", () => new Promise(() => undefined));
    const waiting = agent.call(AGENT, "WaitProcess", new Uint8Array());
    const starting = agent.call(AGENT, "StartContainer", new Uint8Array());
    const asked = (method: string): number => forwarder.requests.filter((r) => r.method === method).length;
    await world.until("both asked", () => asked("WaitProcess") === 1 && asked("StartContainer") === 1);
    path.cut();
    assert.equal((await agent.call(HEALTH, "Check", new Uint8Array())).code, 0);
    await world.until("WaitProcess asked again", () => asked("WaitProcess") === 2);
    over(Buffer.from([0x08, 0x07]));
    assert.deepEqual([...(await waiting).payload], [0x08, 0x07]);
    const unanswered = await starting;
    assert.equal(unanswered.code, 14);
    assert.match(unanswered.message, /StartContainer: the connection to the pod VM broke/);
    assert.equal(asked("StartContainer"), 1);
    assert.equal(agent.closed, false);
  });

  it("gives up a VM that is lost: the shim's health check fails", async () => {
    await using world = await StockWorld.open();
    const agent = await withAgent(world);
    const [id] = world.provider.machines.keys();
    world.provider.fail(id as never, "spot reclaimed");
    await world.until(
      "health check fails",
      async () => (await agent.call(HEALTH, "Check", new Uint8Array())).code !== 0,
    );
  });
});

describe("CreateContainer on its way through the relay", () => {
  const csi = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/pvc-a/mount";
  const other = "/var/lib/kubelet/pods/uid-2/volumes/kubernetes.io~csi/pvc-b/mount";
  const request = (annotations: Record<string, string>, sources: readonly string[] = []): Buffer =>
    Buffer.concat([
      CreateContainerRequest.encode(
        CreateContainerRequest.fromPartial({
          containerId: "c1",
          storages: [{ driver: "image_guest_pull", mountPoint: "/run/kata-containers/c1/rootfs" }],
          OCI: { Annotations: annotations, Mounts: sources.map((source, i) => ({ source, destination: `/mnt/${i}` })) },
          sandboxPidns: true,
        }),
      ).finish(),
      UNKNOWN,
    ]);

  async function sent(
    world: StockWorld,
    payload: Buffer,
  ): Promise<{ bytes: Buffer; annotations: Record<string, string> }> {
    const agent = await withAgent(world);
    const reply = await agent.call(AGENT, "CreateContainer", payload);
    assert.equal(reply.code, 0, reply.message);
    const bytes = world.provider.only.forwarder.last("CreateContainer") ?? Buffer.alloc(0);
    return { bytes, annotations: CreateContainerRequest.decode(bytes).OCI?.Annotations ?? {} };
  }

  async function volumes(entries: Readonly<Record<string, object>>): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), "dv-"));
    for (const [source, info] of Object.entries(entries)) {
      const name = Buffer.from(source).toString("base64").replaceAll("+", "-").replaceAll("/", "_"); // padded
      await mkdir(join(dir, name));
      await writeFile(join(dir, name, "mountInfo.json"), JSON.stringify(info));
    }
    return dir;
  }

  it("stays byte for byte what it was when nothing is to be added", async () => {
    await using world = await StockWorld.open();
    const payload = request({ a: "b" }, ["/etc/hosts"]);
    assert.deepEqual((await sent(world, payload)).bytes, payload);
  });

  it("is passed on without an OCI spec, which crashes the stock adaptor", async () => {
    await using world = await StockWorld.open();
    const payload = Buffer.from([0x0a, 0x02, 0x63, 0x31]);
    assert.deepEqual((await sent(world, payload)).bytes, payload);
  });

  it("gets GPUs when the pod asks for some; all else stays, unknown fields too", async () => {
    await using world = await StockWorld.open();
    const key = "io.katacontainers.config.hypervisor.default_gpus";
    const { bytes, annotations } = await sent(world, request({ [key]: "1", "cdi.k8s.io/peer-pods": "old" }));
    assert.equal(annotations["cdi.k8s.io/peer-pods"], "nvidia.com/gpu=all");
    const decoded = CreateContainerRequest.decode(bytes);
    assert.equal(decoded.sandboxPidns, true);
    assert.equal(decoded.storages[0]?.driver, "image_guest_pull");
    assert.ok(bytes.subarray(-UNKNOWN.length).equals(UNKNOWN));
  });

  it("asks for no GPU when the pod asks for 0", async () => {
    await using world = await StockWorld.open();
    const { annotations } = await sent(world, request({ "io.katacontainers.config.hypervisor.default_gpus": "0" }));
    assert.equal(annotations["cdi.k8s.io/peer-pods"], undefined);
  });

  it("gets the pod's own cloud disks only, numbered over all of them", async () => {
    const dir = await volumes({
      [`${csi}0`]: { device: "disk-0", metadata: {} },
      [csi]: {
        ...{ device: "dev", fstype: "xfs" },
        metadata: { "cloud-volume-path": "disk-1", "encrypt-type": "luks2", "kbs-key-id": "default/key/1" },
      },
      [other]: { device: "disk-2" },
    });
    await using world = await StockWorld.open({ directVolumesDir: dir });
    const { annotations } = await sent(world, request({ "io.kubernetes.cri.sandbox-uid": "uid-1" }, ["/x", csi]));
    assert.equal(annotations["io.confidentialcontainers.org.peerpodvolumes.target_path"], csi);
    const table = JSON.parse(annotations["io.confidentialcontainers.org.cloud_volumes"] ?? "") as Record<
      string,
      object
    >;
    const names = [csi, `${csi}0`].map((p) => Buffer.from(p).toString("base64url")).sort();
    const index = names.indexOf(Buffer.from(csi).toString("base64url"));
    assert.deepEqual(table, {
      [`vol-${index}`]: {
        ...{ mount_point: "/mnt/1", fs_type: "xfs", lun: String(index), disk_id: "disk-1" },
        ...{ encrypt_type: "luks2", key_id: "default/key/1" },
      },
    });
    await rm(dir, { recursive: true });
  });
});
