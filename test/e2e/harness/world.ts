import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Containerd } from "./containerd.ts";
import { reportOnFailure } from "./failure-report.ts";
import { buildVmImage, KATA_REMOTE, ociArchives } from "./images.ts";
import { type Installation, type InstallationOptions, install } from "./installation.ts";
import { isAlive, type ProcessInfo, processesOf, signal, until } from "./processes.ts";
import { inNetwork, must, type Outcome, run } from "./run-command.ts";
import "./tell-failures.ts";
import type { ProviderName, TestCloud } from "./test-cloud.ts";
import { worldReport } from "./world-report.ts";

/** SIGKILL takes a QEMU with much memory, on a host that is busy, some seconds. */
const KILLED_MS = 60_000;
/** A daemon gives back what it holds before it ends. */
const END_MS = 60_000;
const PS_MS = 10_000;

export interface WorldOptions extends Partial<Omit<InstallationOptions, "folder" | "cloud">> {
  /** Whose VMs; "local" unless given. */
  readonly provider?: ProviderName;
  /** Of a cloud's provider, what differs from the usual. */
  readonly cloudSettings?: Readonly<Record<string, unknown>>;
  /** Settings of the shim part that name the world's folder. */
  readonly shimOf?: (folder: string) => InstallationOptions["shim"] & object;
  readonly images?: readonly string[];
  /** Network namespace of everything that runs here, as if it were a machine of its own: its path. */
  readonly netns?: string;
  /** The CNI's configuration list for pods. @param folder where plugins may keep files */
  readonly cni?: (folder: string) => object;
}

/** What `kata-remote ps --json` says of one pod. */
export interface SandboxStatus {
  readonly sandboxId: string;
  readonly namespace: string;
  readonly id: string;
  readonly hypervisor: string;
  readonly state: string;
  readonly instanceId: string;
  readonly guestBootId: string;
  readonly guestKernel: string;
  readonly containers: readonly {
    readonly id: string;
    readonly state: string;
    readonly exitCode: number;
    readonly rootfs: "node" | "guest";
  }[];
  readonly timingsMs: Readonly<Record<string, number>>;
}

/**
 * One kata-remote with its containerd, in a folder of its own: adaptor process, node daemon (started by the launcher
 * when the first pod comes), everything real. `close` ends all of it and fails when something is left.
 */
export class World {
  readonly installation: Installation;
  readonly containerd: Containerd;
  readonly #containerds: Containerd[];
  readonly #images: readonly string[];
  readonly #machine: Machine;
  /** Undefined for provider local. */
  readonly cloud: TestCloud | undefined;
  readonly #endReports: () => void;
  #adaptor: ChildProcess | undefined;

  private constructor(
    installation: Installation,
    containerd: Containerd,
    rest: { readonly images: readonly string[]; readonly cloud: TestCloud | undefined; readonly machine: Machine },
  ) {
    this.installation = installation;
    this.containerd = containerd;
    this.#containerds = [containerd];
    this.#images = rest.images;
    this.#machine = rest.machine;
    this.cloud = rest.cloud;
    const args = ["ps", "--json"];
    const ps = (): Promise<string> => must(KATA_REMOTE, args, { env: installation.env, timeoutMs: PS_MS });
    this.#endReports = reportOnFailure(() => worldReport(this, ps));
  }

  static async start(options: WorldOptions = {}): Promise<World> {
    const images = options.images ?? ["busybox"];
    await buildVmImage();
    const folder = mkdtempSync(join(tmpdir(), "kr-"));
    const { hypervisor = "remote", provider = "local" } = options;
    const shim = { ...options.shim, ...options.shimOf?.(folder) };
    const cloud = await openCloud(provider, folder).catch((e: unknown) => {
      rmSync(folder, { recursive: true, force: true });
      throw e;
    });
    const place =
      cloud === undefined
        ? {}
        : { cloud: { provider, settings: { ...cloud.settings, ...options.cloudSettings }, env: cloud.env } };
    const installation = install({ ...options, ...place, hypervisor, folder, shim });
    const machine = { netns: options.netns, cni: options.cni?.(folder) };
    const containerd = await makeContainerd(installation, "a", images, machine);
    const world = new World(installation, containerd, { images, cloud, machine });
    try {
      if (hypervisor === "remote") await world.startAdaptor();
    } catch (e) {
      await world.close().catch(() => undefined); // the first error is the one to show
      throw e;
    }
    return world;
  }

  get folder(): string {
    return this.installation.folder;
  }

  /** One more containerd that uses the same node daemon. */
  async addContainerd(name: string): Promise<Containerd> {
    const containerd = await makeContainerd(this.installation, name, this.#images, this.#machine);
    this.#containerds.push(containerd);
    return containerd;
  }

  async startAdaptor(): Promise<void> {
    const { adaptorConfig, env, folder } = this.installation;
    const log = openSync(join(folder, "adaptor.log"), "a");
    const { command, args } = inNetwork(this.#machine.netns, KATA_REMOTE, ["adaptor", "--config", adaptorConfig]);
    const child = spawn(command, args, {
      env,
      stdio: ["ignore", log, log],
      detached: true,
    });
    this.#adaptor = child;
    await until(
      "the adaptor to listen",
      END_MS,
      () => {
        if (child.exitCode !== null)
          throw new Error(`the adaptor ended with ${child.exitCode}: ${this.log("adaptor")}`);
        return existsSync(join(this.installation.runDir, "adaptor.sock"));
      },
      () => this.log("adaptor"),
    );
  }

  get adaptorPid(): number {
    if (this.#adaptor?.pid === undefined) throw new Error("the adaptor does not run");
    return this.#adaptor.pid;
  }

  async stopAdaptor(how: "SIGTERM" | "SIGKILL"): Promise<void> {
    const pid = this.adaptorPid;
    signal(pid, how);
    await until("the adaptor to end", END_MS, () => !isAlive(pid));
    this.#adaptor = undefined;
  }

  async ps(): Promise<{ readonly pid: number; readonly sandboxes: readonly SandboxStatus[] }> {
    return JSON.parse(await must(KATA_REMOTE, ["ps", "--json"], { env: this.installation.env })) as {
      pid: number;
      sandboxes: SandboxStatus[];
    };
  }

  async sandbox(id: string, namespace = "default"): Promise<SandboxStatus> {
    const { sandboxes } = await this.ps();
    const found = sandboxes.find((s) => s.id === id && s.namespace === namespace);
    if (found === undefined) throw new Error(`no sandbox ${namespace}/${id} in ${JSON.stringify(sandboxes)}`);
    return found;
  }

  command(args: readonly string[]): Promise<Outcome> {
    return run(KATA_REMOTE, args, { env: this.installation.env });
  }

  /** The node daemon's process, undefined while none runs. */
  daemonPid(): number | undefined {
    return this.processes().find((p) => /kata-remote\.mjs node\b/.test(p.command))?.pid;
  }

  /** The relay process of the node daemon, undefined while none runs. */
  relayPid(): number | undefined {
    return this.processes().find((p) => /relay\.mjs /.test(p.command))?.pid;
  }

  vms(): readonly ProcessInfo[] {
    return this.processes().filter((p) => p.command.startsWith("qemu-system") || p.command.includes("/qemu-system"));
  }

  processes(): readonly ProcessInfo[] {
    return processesOf(this.folder);
  }

  /** Waits until no VM of this world is left. */
  async untilNoVm(timeoutMs = 120_000): Promise<void> {
    await until(
      "every VM to be gone",
      timeoutMs,
      () => this.vms().length === 0,
      () => JSON.stringify(this.vms().map((p) => p.pid)),
    );
  }

  log(name: string): string {
    const path = join(this.folder, `${name}.log`);
    return existsSync(path) ? readFileSync(path, "utf8").slice(-6000) : "";
  }

  /** What pods have left behind, besides the daemons that shall go on: VMs, mounts, network namespaces (mounted too). */
  leftovers(): string[] {
    const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
    return [
      ...this.vms().map((p) => `VM ${p.pid}`),
      ...mounts.filter((line) => line.includes(this.folder)).map((line) => `mount ${line.split(" ")[1]}`),
    ];
  }

  /** Ends everything. @throws Error naming what was left, after having removed it */
  async close(): Promise<void> {
    this.#endReports();
    const problems: string[] = [];
    for (const containerd of this.#containerds) await containerd.close();
    const daemon = this.daemonPid();
    if (daemon !== undefined) await endProcess(daemon, problems, "node daemon");
    if (this.#adaptor?.pid !== undefined) await endProcess(this.#adaptor.pid, problems, "adaptor");
    if (this.cloud !== undefined) await endCloud(this.cloud, problems);
    problems.push(...this.processes().map((p) => `process ${p.pid}: ${p.command.slice(0, 200)}`));
    problems.push(...this.leftovers());
    for (const p of this.processes()) signal(p.pid, "SIGKILL");
    await until("killed processes to end", KILLED_MS, () => this.processes().length === 0);
    for (const line of readFileSync("/proc/mounts", "utf8").split("\n").reverse()) {
      const target = line.split(" ")[1];
      if (target?.startsWith(this.folder)) await run("umount", ["-l", target]);
    }
    // Gone with the last VM, unless whoever made it was killed.
    for (const bridge of Object.values(this.installation.bridges)) {
      const { command, args } = inNetwork(this.#machine.netns, "ip", ["link", "delete", bridge]);
      await run(command, args);
    }
    if (problems.length > 0 && process.env.KATA_REMOTE_TEST_KEEP !== undefined) {
      console.error(`kept for a look: ${this.folder}`);
    } else rmSync(this.folder, { recursive: true, force: true });
    if (problems.length > 0) throw new Error(`left behind: ${problems.join("; ")}`);
  }
}

/** Where the processes of a world run, and how its pods are connected. */
interface Machine {
  readonly netns: string | undefined;
  readonly cni: object | undefined;
}

/** Read only when it is wanted: each brings its endpoint and its models. */
async function openCloud(provider: ProviderName, folder: string): Promise<TestCloud | undefined> {
  if (provider === "local") return undefined;
  if (provider === "aws") return (await import("./aws-cloud.ts")).AwsCloud.open(folder);
  return (await import("./azure-cloud.ts")).AzureCloud.open(folder);
}

async function endCloud(cloud: TestCloud, problems: string[]): Promise<void> {
  try {
    await cloud.unpublish();
    problems.push(...(await cloud.leftovers()));
  } catch (e) {
    problems.push(e instanceof Error ? e.message : String(e));
  }
  await cloud[Symbol.asyncDispose]();
}

async function makeContainerd(
  installation: Installation,
  name: string,
  images: readonly string[],
  machine: Machine,
): Promise<Containerd> {
  const folder = join(installation.folder, name);
  mkdirSync(folder, { recursive: true });
  const containerd = await Containerd.start({ folder, env: installation.env, ...machine });
  for (const archive of await ociArchives([...images, "pause"])) {
    for (const namespace of ["default", "k8s.io"]) await containerd.ctr(["images", "import", archive], { namespace });
  }
  return containerd;
}

async function endProcess(pid: number, problems: string[], what: string): Promise<void> {
  signal(pid, "SIGTERM");
  try {
    await until(`${what} to end`, END_MS, () => !isAlive(pid));
  } catch {
    problems.push(`${what} did not end within ${END_MS / 1000} s of SIGTERM`);
  }
}
