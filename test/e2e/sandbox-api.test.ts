import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { withDeadline } from "../../src/base/call.ts";
import { dialUnix } from "../../src/base/dial-unix.ts";
import { SandboxDefinition } from "../../src/gen/containerd/runtime/sandbox/v1/sandbox.ts";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/shim.ts";
import { NamespaceMode, PodSandboxConfig } from "../../src/gen/cri/runtime/v1/api.ts";
import { createClient, TtrpcClient } from "../../src/ttrpc/index.ts";
import { API_HANDLER } from "./harness/containerd.ts";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { signal, until } from "./harness/processes.ts";
import { must } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

/** As containerd's ids. */
const POD = "a".repeat(64);
const MIB = 1n << 20n;

/** What containerd's sandbox controller does, with a launcher and a socket but no containerd of version 2. */
class Controller {
  readonly #client: TtrpcClient;
  readonly folder: string;

  private constructor(client: TtrpcClient, folder: string) {
    this.#client = client;
    this.folder = folder;
  }

  static async open(world: World, id: string): Promise<Controller> {
    const folder = join(world.folder, "sandboxes", id);
    mkdirSync(join(folder, "rootfs"), { recursive: true });
    // No address: there is no store to ask for the runtime's options.
    const args = ["-namespace", "k8s.io", "-address", "", "-id", id, "start"];
    const address = await must("containerd-shim-kata-remote-v2", args, {
      cwd: folder,
      env: { ...world.installation.env, TTRPC_ADDRESS: "" },
    });
    const socket = await dialUnix(address.trim().replace(/^unix:\/\//, ""), withDeadline(30_000));
    return new Controller(new TtrpcClient(socket), folder);
  }

  get sandboxes() {
    return createClient(SandboxDefinition, this.#client);
  }

  get tasks() {
    return createClient(TaskDefinition, this.#client);
  }

  close(): void {
    this.#client.close();
  }

  /** A container's bundle: busybox, and a spec as the CRI plugin makes it. */
  bundle(id: string, args: readonly string[]): string {
    const bundle = join(this.folder, "..", id);
    const bin = join(bundle, "rootfs", "bin");
    mkdirSync(bin, { recursive: true });
    for (const dir of ["proc", "dev", "sys", "etc"]) mkdirSync(join(bundle, "rootfs", dir));
    copyFileSync("/bin/busybox", join(bin, "busybox"));
    symlinkSync("busybox", join(bin, "sh"));
    const spec = {
      ociVersion: "1.0.2",
      process: { args, cwd: "/", user: { uid: 0, gid: 0 }, env: ["PATH=/bin"] },
      root: { path: "rootfs" },
      annotations: { "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": POD },
      mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
      linux: { namespaces: ["pid", "ipc", "uts", "mount", "network"].map((type) => ({ type })) },
    };
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    return bundle;
  }
}

describe("the Sandbox API", () => {
  let world: World;
  before(async () => {
    world = await World.start();
  });
  after(async () => {
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
    await world.close();
  });

  it("makes a pod of a VM without a pause container, as containerd's controller asks for it", async () => {
    const controller = await Controller.open(world, POD);
    const { sandboxes, tasks } = controller;
    const config = PodSandboxConfig.fromPartial({
      metadata: { name: "api", namespace: "test", uid: "uid-api" },
      hostname: "api-pod",
      dnsConfig: { servers: ["10.9.8.7"], searches: ["test.svc"] },
      linux: {
        securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
        sysctls: { "kernel.shm_rmid_forced": "1" },
        resources: { memoryLimitInBytes: 128n * MIB },
      },
    });
    const value = Buffer.from(PodSandboxConfig.encode(config).finish());
    const patient = () => withDeadline(300_000);
    await sandboxes.createSandbox(
      {
        ...{ sandboxId: POD, bundlePath: controller.folder, rootfs: [], netnsPath: "", annotations: {} },
        options: { typeUrl: "runtime.v1.PodSandboxConfig", value },
      },
      patient(),
    );
    const { pid } = await sandboxes.startSandbox({ sandboxId: POD }, patient());
    assert.equal(pid, world.relayPid());
    const waited = sandboxes.waitSandbox({ sandboxId: POD }, withDeadline(600_000));
    assert.equal((await sandboxes.sandboxStatus({ sandboxId: POD, verbose: false })).state, "SANDBOX_READY");
    const [sandbox] = (await world.ps()).sandboxes;
    assert.deepEqual([sandbox?.id, sandbox?.containers, world.vms().length], [POD, [], 1]);

    const out = join(world.folder, "out");
    const read = "busybox cat /etc/hostname /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced; busybox hostname";
    const request = { rootfs: [], terminal: false, stdin: "", stderr: "", checkpoint: "", parentCheckpoint: "" };
    const bundle = controller.bundle("container-of-the-pod", ["sh", "-c", `${read}; exec busybox sleep 1000`]);
    const id = "container-of-the-pod";
    await tasks.create({ ...request, id, bundle, stdout: `file://${out}`, options: undefined }, patient());
    await tasks.start({ id, execId: "" }, patient());
    const said = await until("its output", 180_000, () => {
      const text = readFileSync(out, "utf8");
      return text.split("\n").length > 5 && text;
    });
    assert.equal(said, "api-pod\nsearch test.svc\nnameserver 10.9.8.7\n1\napi-pod\n");

    // The next daemon goes on with pod and container.
    signal(world.daemonPid() ?? assert.fail("no daemon runs"), "SIGKILL");
    await sandboxes.pingSandbox({ sandboxId: POD }, patient());
    const { metrics } = await sandboxes.sandboxMetrics({ sandboxId: POD }, patient());
    assert.match(metrics?.data?.typeUrl ?? "", /^io\.containerd\.cgroups\.v[12]\.Metrics$/);
    assert.ok((metrics?.data?.value.length ?? 0) > 10);

    await tasks.kill({ id, execId: "", signal: 9, all: true }, patient());
    assert.equal((await tasks.wait({ id, execId: "" }, patient())).exitStatus, 137);
    await tasks.delete({ id, execId: "" }, patient());
    await tasks.shutdown({ id, now: false }, patient());
    assert.equal((await sandboxes.sandboxStatus({ sandboxId: POD, verbose: false })).state, "SANDBOX_READY");
    await sandboxes.stopSandbox({ sandboxId: POD, timeoutSecs: 0 }, patient());
    assert.equal((await waited).exitStatus, 0);
    await sandboxes.shutdownSandbox({ sandboxId: POD }, patient());
    controller.close();
    await world.untilNoVm();
    assert.deepEqual((await world.ps()).sandboxes, []);
  });

  it("is what containerd 2 uses where its handler says so", async (t) => {
    const version = await must("containerd", ["--version"]);
    if (!/ v?2\./.test(version)) return t.skip(`containerd here is older than 2: ${version.trim()}`);
    const cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    const annotations = { "io.katacontainers.config.hypervisor.default_memory": "256" };
    const pod = await cri.runPod({ name: "api", handler: API_HANDLER, annotations, sharePid: true });
    const [sandbox] = (await world.ps()).sandboxes;
    assert.deepEqual([sandbox?.id, sandbox?.containers], [pod, []]);
    const first = await cri.startContainer(pod, { name: "first", image: BUSYBOX, command: ["sleep", "4242"] });
    const second = await cri.startContainer(pod, { name: "second", image: BUSYBOX, command: ["sleep", "1000"] });
    const sh = async (id: string, script: string) => (await cri.execSync(id, ["sh", "-c", script])).stdout.trim();
    assert.equal(await sh(second, "hostname; cat /etc/hostname"), "api\napi");
    assert.match(await sh(second, "cat /etc/resolv.conf; df /dev/shm"), /nameserver[\s\S]*shm/);
    assert.match(await sh(second, "ps -o args"), /sleep 4242/, "processes are shared");
    const { status } = await cri.runtime.podSandboxStatus({ podSandboxId: pod, verbose: true }, withDeadline(30_000));
    assert.equal(status?.state, 0);

    await world.containerd.restart("SIGKILL");
    const again = new Cri(world.containerd.address, join(world.folder, "logs"));
    assert.equal((await again.execSync(first, ["echo", "lives"])).stdout, "lives\n");
    await again.stopContainer(first, 0);
    assert.equal(await again.exitCode(first), 137);
    assert.equal((await again.execSync(second, ["echo", "still"])).stdout, "still\n");
    await again.runtime.stopPodSandbox({ podSandboxId: pod }, withDeadline(90_000));
    await again.runtime.removePodSandbox({ podSandboxId: pod }, withDeadline(90_000));
    await world.untilNoVm();
    const bad = { "io.katacontainers.config.hypervisor.kernel_params": "quiet" };
    await assert.rejects(
      again.runPod({ name: "refused", handler: API_HANDLER, annotations: bad }),
      /kernel_params = "quiet" is not supported/,
    );
    await again.close();
  });
});
