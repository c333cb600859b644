import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Call, withDeadline } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { Process, Spec } from "../../src/gen/agent/oci.ts";
import { GuestDefinition } from "../../src/gen/kataremote/guest/v1/guest.ts";
import { GUEST_PORT, GUEST_PULL_DRIVER, TREE_STORAGE_DRIVER } from "../../src/guestwire/index.ts";
import type { GuestFacts } from "../../src/relay/index.ts";
import { createClient, type ServiceClient } from "../../src/ttrpc/index.ts";
import { renderUserData } from "../../src/userdata/index.ts";
import { loadBootImage, QemuVmm, type VmmHandle } from "../../src/vmm/index.ts";
import { RelayFixture } from "./relay-fixture.ts";
import { TcpProxy } from "./tcp-proxy.ts";

export interface ContainerOptions {
  readonly terminal?: boolean;
  readonly uid?: number;
  readonly oomScoreAdj?: number;
  readonly memoryLimitBytes?: number;
  readonly sandboxPidns?: boolean;
  /** The guest pulls it; absent: the tree of busybox. */
  readonly image?: { readonly source: string; readonly driverOptions?: readonly string[] };
  readonly mounts?: readonly { readonly destination: string; readonly source: string }[];
}

const TREE = "busybox";
const CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"];

/** A booted pod VM behind a path that can be cut, with the node daemon's own relay at this end and no containerd. */
export class GuestVm implements AsyncDisposable {
  readonly agent: ServiceClient<typeof AgentServiceDefinition>;
  readonly guest: ServiceClient<typeof GuestDefinition>;
  readonly facts: GuestFacts;
  readonly proxy: TcpProxy;
  readonly fixture: RelayFixture;
  readonly #vmm: QemuVmm;
  readonly #handle: VmmHandle;

  private constructor(parts: {
    fixture: RelayFixture;
    proxy: TcpProxy;
    vmm: QemuVmm;
    handle: VmmHandle;
    facts: GuestFacts;
  }) {
    this.fixture = parts.fixture;
    this.proxy = parts.proxy;
    this.facts = parts.facts;
    this.#vmm = parts.vmm;
    this.#handle = parts.handle;
    const caller = parts.fixture.relay.guest(parts.fixture.sandboxId);
    this.agent = createClient(AgentServiceDefinition, caller);
    this.guest = createClient(GuestDefinition, caller);
  }

  /** @param imageDir as `kata-remote image build` makes it */
  static async boot(
    imageDir: string,
    cacheDir: string,
    options: { readonly diskGiB?: number; readonly outbound?: boolean } = {},
  ): Promise<GuestVm> {
    const fixture = await RelayFixture.create();
    const vmm = new QemuVmm({ log: silentLogger(), cacheDir });
    const dir = join(fixture.dir, "vm");
    mkdirSync(dir, { mode: 0o700 });
    const call = withDeadline(180_000);
    const handle = await vmm.start(
      {
        ...(await loadBootImage(imageDir)),
        ...{ name: "guest-test", dir, vcpus: 2, memoryMiB: 512, guestPort: GUEST_PORT },
        ...{ userData: renderUserData({ caPem: fixture.ca.caPem }), metaData: "instance-id: guest-test\n" },
        ...{ lifetime: "child", acceleration: "auto", ...options },
      },
      call,
    );
    const proxy = await TcpProxy.open(() => handle.hostPort);
    const facts = await fixture.relay.connectGuest(fixture.spec(proxy.port), call);
    const vm = new GuestVm({ fixture, proxy, vmm, handle, facts });
    await vm.sendTree(TREE, busyboxTree(fixture.dir), call);
    return vm;
  }

  sendTree(treeId: string, path: string, call: Call): Promise<unknown> {
    return this.fixture.relay.sendTree(this.fixture.sandboxId, { treeId, path }, call);
  }

  /** Creates and starts a container of busybox. */
  async run(id: string, args: readonly string[], options: ContainerOptions = {}): Promise<void> {
    const rootPath = `/run/kata-containers/${id}/rootfs`;
    const { image } = options;
    const origin =
      image === undefined
        ? { driver: TREE_STORAGE_DRIVER, source: TREE, driverOptions: [] }
        : { driver: GUEST_PULL_DRIVER, source: image.source, driverOptions: [...(image.driverOptions ?? [])] };
    await this.agent.createContainer({
      ...{ containerId: id, execId: id, devices: [], sharedMounts: [] },
      ...{ stdinPort: 0, stdoutPort: 0, stderrPort: 0, sandboxPidns: options.sandboxPidns ?? false },
      storages: [{ ...origin, fstype: "overlay", mountPoint: rootPath, options: [], shared: false }],
      OCI: specOf(rootPath, args, options),
    });
    await this.agent.startContainer({ containerId: id });
  }

  async exec(
    containerId: string,
    execId: string,
    args: readonly string[],
    options: ContainerOptions = {},
  ): Promise<void> {
    const ports = { stdinPort: 0, stdoutPort: 0, stderrPort: 0 };
    await this.agent.execProcess({ containerId, execId, process: processOf(args, options), ...ports });
  }

  /** All that is left of an output. */
  async output(
    containerId: string,
    execId: string,
    stream: "readStdout" | "readStderr" = "readStdout",
  ): Promise<string> {
    const parts: Uint8Array[] = [];
    for (;;) {
      const { data } = await this.agent[stream]({ containerId, execId, len: 1 << 20 });
      if (data.length === 0) return Buffer.concat(parts).toString("utf8");
      parts.push(data);
    }
  }

  async status(containerId: string, execId = ""): Promise<number> {
    return (await this.agent.waitProcess({ containerId, execId })).status;
  }

  async remove(containerId: string): Promise<void> {
    await this.agent.removeContainer({ containerId, timeout: 0 });
  }

  /** Runs a shell script in a container of its own to its end. */
  async shell(
    id: string,
    script: string,
    options: ContainerOptions = {},
  ): Promise<{ out: string; err: string; code: number }> {
    await this.run(id, ["sh", "-c", script], options);
    const [out, err] = await Promise.all([this.output(id, id), this.output(id, id, "readStderr")]);
    const code = await this.status(id);
    await this.remove(id);
    return { out, err, code };
  }

  /** Resolves when the VM is off. */
  async off(): Promise<void> {
    await this.#vmm.wait(this.#handle, withDeadline(30_000));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#vmm[Symbol.asyncDispose]();
    await this.fixture[Symbol.asyncDispose]();
    await this.proxy.close();
  }
}

function processOf(args: readonly string[], options: ContainerOptions): Process {
  const { uid = 0, terminal = false, oomScoreAdj = 0 } = options;
  return Process.fromPartial({
    Terminal: terminal,
    ConsoleSize: terminal ? { Height: 24, Width: 80 } : undefined,
    User: { UID: uid, GID: uid },
    Args: [...args],
    Env: ["PATH=/bin", "TERM=xterm"],
    Cwd: "/",
    Capabilities: { Bounding: CAPABILITIES, Effective: CAPABILITIES, Permitted: CAPABILITIES },
    OOMScoreAdj: BigInt(oomScoreAdj),
  });
}

function specOf(rootPath: string, args: readonly string[], options: ContainerOptions): Spec {
  return Spec.fromPartial({
    Process: processOf(args, options),
    Root: { Path: rootPath },
    Mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
      { destination: "/dev/pts", type: "devpts", source: "devpts", options: ["newinstance", "ptmxmode=0666", "gid=5"] },
      { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"] },
      ...(options.mounts ?? []).map((m) => ({ ...m, type: "bind", options: ["rbind", "ro"] })),
    ],
    Linux: {
      CgroupsPath: "/default/x",
      Namespaces: ["pid", "ipc", "uts", "mount"].map((Type) => ({ Type, Path: "" })),
      Resources: { Memory: { Limit: BigInt(options.memoryLimitBytes ?? 0) } },
    },
  });
}

/** A root file system of nothing but busybox. */
function busyboxTree(parent: string): string {
  const tree = mkdtempSync(join(parent, "busybox-"));
  chmodSync(tree, 0o755);
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(join(tree, name));
  const busybox = execFileSync("sh", ["-c", "command -v busybox"], { encoding: "utf8" }).trim();
  copyFileSync(busybox, join(tree, "bin/busybox"));
  chmodSync(join(tree, "bin/busybox"), 0o755);
  const applets = execFileSync(busybox, ["--list"], { encoding: "utf8" }).trim().split("\n");
  for (const name of applets) if (name !== "busybox") symlinkSync("busybox", join(tree, "bin", name));
  writeFileSync(join(tree, "etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
  return tree;
}
