import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { FakeAgent } from "../../../test/fakes/agent.ts";
import { rejectsStatus, ShimFixture, until } from "../../../test/fakes/shim.ts";
import { background, withDeadline } from "../../base/call.ts";
import { Metrics as MetricsV1 } from "../../gen/containerd/cgroups/v1/metrics.ts";
import { Metrics as MetricsV2 } from "../../gen/containerd/cgroups/v2/metrics.ts";
import { SandboxDefinition } from "../../gen/containerd/runtime/sandbox/v1/sandbox.ts";
import { NamespaceMode, PodSandboxConfig } from "../../gen/cri/runtime/v1/api.ts";
import { Options } from "../../gen/runtimeoptions/v1/options.ts";
import { Code, createClient, type ServiceClient, StatusError } from "../../ttrpc/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

/** No containerd to ask for the runtime's options. */
const DOOR = "k8s.io@";
/** As long as CRI's ids, so that paths with it are known to be the pod's. */
const POD = "pod-0123456789abcdef";
const CONTAINER = {
  "io.kubernetes.cri.container-type": "container",
  "io.kubernetes.cri.sandbox-id": POD,
};

function sandbox(key?: string): ServiceClient<typeof SandboxDefinition> {
  const caller = {
    call: async (service: string, method: string, payload: Uint8Array): Promise<Uint8Array> => {
      const request = { key: key ?? randomUUID(), door: DOOR, connection: 1, service, method, payload, metadata: [] };
      const reply = await f.shim.answer({ ...request, timeoutMs: undefined }, background());
      if (reply.ok) return reply.payload;
      throw new StatusError(reply.code, reply.message);
    },
  };
  return createClient(SandboxDefinition, caller);
}

type Config = Parameters<typeof PodSandboxConfig.fromPartial>[0];

async function createRequest(config: Config = {}) {
  const bundlePath = join(f.dir, "k8s.io", POD);
  await mkdir(bundlePath, { recursive: true });
  const value = PodSandboxConfig.fromPartial({
    metadata: { name: "web", namespace: "shop", uid: "u-1" },
    hostname: "web",
    dnsConfig: { servers: ["10.0.0.10"], searches: ["shop.svc", "svc"], options: ["ndots:5"] },
    ...config,
    linux: {
      securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
      ...config.linux,
    },
  });
  return {
    ...{ sandboxId: POD, bundlePath, rootfs: [], netnsPath: "/run/netns/x", annotations: {} },
    options: { typeUrl: "runtime.v1.PodSandboxConfig", value: Buffer.from(PodSandboxConfig.encode(value).finish()) },
  };
}

async function started(config: Config = {}): Promise<void> {
  await sandbox().createSandbox(await createRequest(config));
  await sandbox().startSandbox({ sandboxId: POD });
}

const task = (key?: string) => f.task({ door: DOOR, ...(key === undefined ? {} : { key }) });

async function container(id: string): Promise<void> {
  await task().create(await f.createRequest(id, (s) => ({ ...s, annotations: CONTAINER }), "k8s.io"));
  await task().start({ id, execId: "" });
}

async function nextDaemon(...waiting: string[]): Promise<void> {
  f.relay.taskKeys.clear();
  for (const key of waiting) f.relay.taskKeys.add(key);
  await f.nextShim().recover(background());
}

const state = async () => (await sandbox().sandboxStatus({ sandboxId: POD, verbose: false })).state;

describe("a pod of the Sandbox API", () => {
  it("is a VM of its configuration's size, without a container of its own", async () => {
    const annotations = { "io.katacontainers.config.hypervisor.default_vcpus": "1" };
    const linux = { resources: { cpuQuota: 150_000n, cpuPeriod: 100_000n, memoryLimitInBytes: 300n << 20n } };
    await sandbox().createSandbox(await createRequest({ annotations, linux }));
    assert.deepEqual([f.hypervisor.requests.length, await state()], [0, "SANDBOX_NOTREADY"]);
    const { pid, createdAt } = await sandbox().startSandbox({ sandboxId: POD });
    const [request] = f.hypervisor.requests;
    assert.deepEqual(
      [request?.vcpus, request?.memoryMiB, request?.pod, request?.containerd],
      [2.5, 300, { namespace: "shop", name: "web", uid: "u-1" }, { namespace: "k8s.io", id: POD }],
    );
    assert.ok(pid > 0 && (createdAt?.seconds ?? 0n) > 0n);
    assert.deepEqual([...f.relay.agent.created.keys()], []);
    assert.equal(await state(), "SANDBOX_READY");
    await sandbox().pingSandbox({ sandboxId: POD });
    assert.equal((await sandbox().platform({ sandboxId: POD })).platform?.os, "linux");
    // containerd asks for both when it starts again.
    assert.deepEqual((await task().connect({ id: POD })).taskPid, pid);
    assert.equal((await task().pids({ id: POD })).processes[0]?.pid, pid);
  });

  it("gives its containers hosts, hostname, resolv.conf and sysctls, and outlives them", async () => {
    await started({ linux: { sysctls: { "net.core.somaxconn": "7" } } });
    await container("a");
    const spec = f.relay.agent.created.get("a")?.OCI;
    assert.deepEqual(
      spec?.Mounts.map((m) => m.destination),
      ["/proc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"],
    );
    assert.deepEqual(spec?.Linux?.Sysctl, { "net.core.somaxconn": "7" });
    const resolv = await readFile(join(f.dir, "k8s.io", POD, "kata-remote.resolv.conf"), "utf8");
    assert.equal(resolv, "search shop.svc svc\nnameserver 10.0.0.10\noptions ndots:5\n");
    f.relay.agent.end("a", 3);
    assert.equal((await task().wait({ id: "a", execId: "" })).exitStatus, 3);
    await task().delete({ id: "a", execId: "" });
    await task().shutdown({ id: "a", now: false });
    assert.deepEqual([await state(), f.hypervisor.stopped], ["SANDBOX_READY", []]);
    await container("b");
  });

  it("has a process in the guest that holds a shared process namespace", async () => {
    await started({ linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.POD } } } });
    const held = f.relay.agent.created.get(POD);
    assert.deepEqual([held?.storages[0]?.driver, held?.storages[0]?.source], ["image_guest_pull", "pause"]);
    assert.ok(f.relay.agent.calls.includes("StartContainer"));
    await rejectsStatus(task().state({ id: POD, execId: "" }), Code.notFound, /no task/);
  });

  it("ends with StopSandbox, which its waiters hear before its VM is gone", async () => {
    await started();
    await container("a");
    const waited = sandbox().waitSandbox({ sandboxId: POD });
    await sandbox().stopSandbox({ sandboxId: POD, timeoutSecs: 0 });
    assert.equal((await waited).exitStatus, 0);
    assert.equal((await task().wait({ id: "a", execId: "" })).exitStatus, 137);
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.equal(await state(), "SANDBOX_NOTREADY");
    await rejectsStatus(
      sandbox().pingSandbox({ sandboxId: POD }),
      Code.failedPrecondition,
      /is not started, or stopped/,
    );
    await task().delete({ id: "a", execId: "" });
    await sandbox().shutdownSandbox({ sandboxId: POD });
    await sandbox().shutdownSandbox({ sandboxId: POD });
    await until(() => f.shim.sandboxCount() === 0);
    assert.equal(await state(), "SANDBOX_NOTREADY");
    await rejectsStatus(sandbox().stopSandbox({ sandboxId: POD, timeoutSecs: 0 }), Code.notFound, /no pod sandbox/);
    await until(() => readdirSync(join(f.runDir, "tasks")).length === 0);
  });

  it("says 255 when its VM is lost", async () => {
    await started();
    await container("a");
    const [id] = f.shim.liveSandboxes();
    assert.ok(id !== undefined);
    f.shim.onVmLoss({ sandboxId: id, reason: "switched off" });
    assert.equal((await sandbox().waitSandbox({ sandboxId: POD })).exitStatus, 255);
    assert.equal((await task().wait({ id: "a", execId: "" })).exitStatus, 255);
    assert.equal(await state(), "SANDBOX_NOTREADY");
  });

  it("has the figures of its containers together", async () => {
    await started();
    await container("a");
    await container("b");
    const { metrics } = await sandbox().sandboxMetrics({ sandboxId: POD });
    const value = metrics?.data?.value ?? Buffer.alloc(0);
    const v1 = metrics?.data?.typeUrl === "io.containerd.cgroups.v1.Metrics";
    const one = (await task().stats({ id: "a" })).stats?.value ?? Buffer.alloc(0);
    const cpu = (bytes: Buffer): bigint | undefined =>
      v1 ? MetricsV1.decode(bytes).cpu?.usage?.total : MetricsV2.decode(bytes).cpu?.usageUsec;
    assert.ok((cpu(one) ?? 0n) > 0n);
    assert.equal(cpu(value), 2n * (cpu(one) ?? 0n));
    assert.equal(metrics?.id, POD);
  });

  it("says to the backend when its class lets the node make a confidential pod's root file systems", async () => {
    const text = "confidential_guest = true\nallow_node_rootfs = true\n";
    const configPath = join(f.dir, "runtime.toml");
    await writeFile(configPath, `${text}experimental_force_guest_pull = false\n`);
    const options = {
      typeUrl: "runtimeoptions.v1.Options",
      value: Buffer.from(Options.encode(Options.fromPartial({ configPath })).finish()),
    };
    await f.task().create({ ...(await f.createRequest("c1")), options });
    await writeFile(configPath, "confidential_guest = false\n");
    await f.task().create({ ...(await f.createRequest("c2")), options });
    assert.deepEqual(
      f.hypervisor.readyFacts.map((facts) => facts?.nodeRootfsAllowed),
      [true, false],
    );
  });

  it("is undone when it cannot be started", async () => {
    await sandbox().createSandbox(await createRequest());
    f.relay.newAgent = () => {
      const agent = new FakeAgent();
      agent.on.createSandbox = async () => {
        throw new StatusError(Code.internal, "no memory");
      };
      return agent;
    };
    await assert.rejects(sandbox().startSandbox({ sandboxId: POD }), /no memory/);
    await until(() => f.hypervisor.stopped.length === 1);
    await sandbox().shutdownSandbox({ sandboxId: POD });
    await until(() => f.shim.sandboxCount() === 0);
  });

  for (const [what, config, message] of [
    ["the node's network", { network: NamespaceMode.NODE }, /namespace_options\.network = "NODE": hostNetwork/],
    ["the node's processes", { pid: NamespaceMode.NODE }, /namespace_options\.pid = "NODE": hostPID/],
  ] as const) {
    it(`is refused with ${what}, by the field's name`, async () => {
      const linux = { securityContext: { namespaceOptions: config } };
      const request = await createRequest({ linux });
      await rejectsStatus(sandbox().createSandbox(request), Code.failedPrecondition, message);
    });
  }

  it("is refused with an annotation that is not enabled, with other options, and twice", async () => {
    const key = "io.katacontainers.config.hypervisor.kernel_params";
    const bad = await createRequest({ annotations: { [key]: "quiet" } });
    await rejectsStatus(sandbox().createSandbox(bad), Code.failedPrecondition, /kernel_params = "quiet" is not/);
    const request = await createRequest();
    const other = { ...request, options: { typeUrl: "x.Y", value: Buffer.alloc(0) } };
    await rejectsStatus(sandbox().createSandbox(other), Code.invalidArgument, /of type "x\.Y"/);
    await sandbox("k1").createSandbox(request);
    await sandbox("k1").createSandbox(request);
    await rejectsStatus(sandbox("k2").createSandbox(request), Code.alreadyExists, /exists already/);
  });
});

describe("the next daemon and a pod of the Sandbox API", () => {
  it("goes on with it and its containers", async () => {
    await started();
    await container("a");
    const { pid } = await sandbox().sandboxStatus({ sandboxId: POD, verbose: false });
    await nextDaemon();
    assert.deepEqual(f.hypervisor.stopped, []);
    const { info, ...status } = await sandbox().sandboxStatus({ sandboxId: POD, verbose: true });
    assert.deepEqual([status.state, status.pid], ["SANDBOX_READY", pid]);
    assert.match(info.kataRemote ?? "", /"instanceId":"vm-1"/);
    await container("b");
    const waited = sandbox().waitSandbox({ sandboxId: POD });
    await sandbox().stopSandbox({ sandboxId: POD, timeoutSecs: 5 });
    assert.equal((await waited).exitStatus, 0);
  });

  it("starts one that was created, and starts anew what was being started", async () => {
    await sandbox().createSandbox(await createRequest());
    await nextDaemon();
    const hangs = new FakeAgent();
    hangs.on.createSandbox = () => new Promise(() => undefined);
    f.relay.newAgent = () => hangs;
    f.relay.taskKeys.add("k1");
    void sandbox("k1").startSandbox({ sandboxId: POD });
    await until(() => hangs.calls.includes("CreateSandbox"));
    f.relay.newAgent = () => new FakeAgent();
    await nextDaemon("k1");
    await sandbox("k1").startSandbox({ sandboxId: POD });
    assert.equal(await state(), "SANDBOX_READY");
    await until(() => f.hypervisor.stopped.length === 1);
    assert.equal(f.hypervisor.requests.length, 2);
    await nextDaemon("k1");
    await sandbox("k1").startSandbox({ sandboxId: POD });
    await rejectsStatus(sandbox("k2").startSandbox({ sandboxId: POD }), Code.failedPrecondition, /started already/);
  });

  it("knows that it has ended, also when its VM went with the daemon before", async () => {
    await started();
    f.relay.die();
    await f.nextShim().recover(background());
    const wait = sandbox().waitSandbox({ sandboxId: POD });
    const exit = await Promise.race([
      wait,
      new Promise((_, no) => withDeadline(5_000).signal.addEventListener("abort", no)),
    ]);
    assert.equal((exit as { exitStatus: number }).exitStatus, 255);
    await until(() => f.hypervisor.stopped.length === 1);
  });

  it("is asked by containerd to clean up after a lost connection", async () => {
    await started();
    await f.shim.cleanup("", "k8s.io", POD, background());
    await until(() => f.shim.sandboxCount() === 0);
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.equal(await state(), "SANDBOX_NOTREADY");
  });
});
