import { spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { ControlDefinition, type SandboxStatus } from "../../src/gen/kataremote/node/v1/control.ts";
import { createClient, TtrpcClient } from "../../src/ttrpc/index.ts";
import { Containerd, RUNTIME } from "../e2e/harness/containerd.ts";
import { BUSYBOX, CACHE, ociArchives, VM_IMAGE } from "../e2e/harness/images.ts";
import { type Installation, type InstallationOptions, install } from "../e2e/harness/installation.ts";
import { isAlive, processesOf, signal, until } from "../e2e/harness/processes.ts";
import { must, type RunOptions, start } from "../e2e/harness/run-command.ts";
import type { BenchScope } from "./bench-scope.ts";

/** containerd's `-address` when the launcher is called without a containerd. */
const NO_CONTAINERD = "/nowhere/containerd.sock";

export interface PodWorldOptions {
  readonly name: string;
  /** Added to the adaptor's configuration, TOML. */
  readonly adaptor?: string;
  /** How pods and VMs are connected. */
  readonly installation?: Pick<InstallationOptions, "network" | "podNetwork" | "shim">;
}

/**
 * One kata-remote with a containerd, from the bench's own build, in a folder of its own: what the end-to-end tests use,
 * apart from where the programs come from.
 */
export class PodWorld implements AsyncDisposable {
  readonly folder: string;
  readonly installation: Installation;
  readonly env: NodeJS.ProcessEnv;
  readonly #bin: string;
  readonly #scope: BenchScope;
  readonly #owned = new AsyncDisposableStack();
  #containerd: Containerd | undefined;

  private constructor(scope: BenchScope, bin: string, options: PodWorldOptions) {
    this.#scope = scope;
    this.#bin = bin;
    this.folder = join(scope.folder, options.name);
    mkdirSync(this.folder, { recursive: true });
    this.installation = install({ folder: this.folder, hypervisor: "remote", ...options.installation });
    this.env = { ...this.installation.env, PATH: `${bin}${delimiter}${process.env.PATH ?? ""}` };
    for (const path of [this.installation.nodeConfig, this.installation.adaptorConfig]) {
      writeFileSync(path, readFileSync(path, "utf8").replaceAll(VM_IMAGE, vmImage(scope)));
    }
    appendFileSync(this.installation.adaptorConfig, options.adaptor ?? "");
  }

  /** An adaptor is running; the node daemon comes with the first call of the launcher. */
  static async start(scope: BenchScope, options: PodWorldOptions): Promise<PodWorld> {
    const world = new PodWorld(scope, await scope.bin(), options);
    try {
      await world.#startAdaptor();
      return world;
    } catch (e) {
      await world[Symbol.asyncDispose]();
      throw e;
    }
  }

  get containerd(): Containerd {
    if (this.#containerd === undefined) throw new Error("startContainerd comes first");
    return this.#containerd;
  }

  /** Builds the pod VM image, starts containerd and imports busybox, and what its CRI makes pods of. */
  async startContainerd(): Promise<void> {
    const scope = this.#scope;
    if (!existsSync(vmImage(scope))) {
      scope.say("pod VM image");
      const args = ["image", "build", "--out", vmImage(scope), "--cache", join(CACHE, "podvm-build")];
      await this.#must(join(this.#bin, "kata-remote"), args, { timeoutMs: 900_000 });
    }
    const folder = join(this.folder, "c");
    mkdirSync(folder);
    const containerd = await Containerd.start({ folder, env: this.env });
    this.#containerd = containerd;
    this.#owned.defer(() => containerd.close());
    for (const archive of await ociArchives(["busybox", "pause"])) {
      for (const namespace of ["default", "k8s.io"]) await containerd.ctr(["images", "import", archive], { namespace });
    }
    scope.call.signal.throwIfAborted();
  }

  /** Calls the launcher as containerd does for the first pod: the node daemon starts. */
  async startDaemon(): Promise<number> {
    const bundle = join(this.folder, "bundle");
    mkdirSync(bundle, { recursive: true });
    // Before it is there: the launcher may be interrupted after it has started the daemon.
    this.#owned.defer(() => this.#endDaemon());
    await must(this.launcher, this.launcherArgs("first"), { cwd: bundle, env: this.env });
    return (await this.status()).pid;
  }

  get launcher(): string {
    return join(this.#bin, "containerd-shim-kata-remote-v2");
  }

  launcherArgs(id: string): string[] {
    const address = this.#containerd?.address ?? NO_CONTAINERD;
    return ["-namespace", "default", "-address", address, "-id", id, "start"];
  }

  /** Starts a container that sleeps, in a pod VM of its own, and gives what the node daemon says of it. */
  async startPod(id: string): Promise<SandboxStatus> {
    const run = ["run", "-d", "--runtime", RUNTIME, BUSYBOX, id, "sleep", "86400"];
    await this.#must("ctr", this.containerd.ctrArgs(run), { timeoutMs: 600_000 });
    const found = (await this.status()).sandboxes.find((s) => s.id === id);
    if (found === undefined) throw new Error(`the node daemon does not know pod ${id}`);
    return found;
  }

  async removePod(id: string): Promise<void> {
    await this.containerd.ctr(["task", "rm", "--force", id]);
    await this.containerd.ctr(["container", "rm", id]);
  }

  /** As `kata-remote ps`, without starting a program for it. */
  async status(): Promise<{ readonly pid: number; readonly nodeId: string; readonly sandboxes: SandboxStatus[] }> {
    using client = new TtrpcClient(connect(join(this.installation.runDir, "control.sock")));
    return await createClient(ControlDefinition, client).status({}, { timeoutMs: 10_000 });
  }

  /** The process that holds the connections of the pods; the node daemon has started it. */
  relayPid(): number {
    const [relay] = this.#relays();
    if (relay === undefined) throw new Error("the node daemon has no relay process");
    return relay;
  }

  #relays(): readonly number[] {
    return processesOf(this.folder)
      .filter((p) => /\/relay\.mjs /.test(p.command))
      .map((p) => p.pid);
  }

  vms(): readonly { readonly pid: number; readonly command: string }[] {
    return processesOf(this.folder).filter((p) => /^\S*qemu-system/.test(p.command));
  }

  /** Until the VMs and what the provider kept of them (directory, cgroup) are gone. */
  async untilNoVm(): Promise<void> {
    const kept = join(this.folder, "state", "local");
    const instances = (): string[] => (existsSync(kept) ? readdirSync(kept).filter((n) => n.startsWith("local-")) : []);
    await until("every VM to be gone", 60_000, () => this.vms().length === 0 && instances().length === 0);
  }

  /** "TCG" or "KVM": how the VMs that run now are executed. */
  acceleration(): "TCG" | "KVM" {
    return this.vms().some((p) => p.command.includes("-accel kvm")) ? "KVM" : "TCG";
  }

  /** Ends every pod, containerd, daemon and adaptor. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#containerd !== undefined) {
      const { stdout } = await this.#containerd.tryCtr(["task", "ls", "--quiet"]);
      for (const id of stdout.split("\n").filter((line) => line !== "")) {
        await this.#containerd.tryCtr(["task", "rm", "--force", id]); // what fails here is ended with the daemon below
      }
    }
    await this.#owned.disposeAsync();
    await this.untilNoVm();
  }

  /** Runs a program that may take long and must succeed; ends it when the bench is to end. */
  async #must(command: string, args: readonly string[], options: RunOptions): Promise<void> {
    const { signal: interrupted } = this.#scope.call;
    interrupted.throwIfAborted();
    const { child, done } = start(command, args, options);
    const kill = (): boolean => child.kill();
    interrupted.addEventListener("abort", kill, { once: true });
    const { code, stderr } = await done;
    interrupted.removeEventListener("abort", kill);
    interrupted.throwIfAborted();
    if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}: ${stderr}`);
  }

  async #endDaemon(): Promise<void> {
    for (const { pid, command } of processesOf(this.folder)) {
      if (/kata-remote\.mjs node\b/.test(command)) await end(pid, "the node daemon");
    }
    // Without pods the daemon ends its relay.
    await until("the relay process to end", 30_000, () => this.#relays().length === 0);
  }

  async #startAdaptor(): Promise<void> {
    const { adaptorConfig, runDir } = this.installation;
    const logPath = join(this.folder, "adaptor.log");
    const log = openSync(logPath, "a");
    const child = spawn(join(this.#bin, "kata-remote"), ["adaptor", "--config", adaptorConfig], {
      env: this.env,
      stdio: ["ignore", log, log],
      detached: true, // a Ctrl-C must not reach it before the pods have ended
    });
    this.#owned.defer(async () => {
      // Deletions are its work: it goes last.
      await this.untilNoVm();
      if (child.pid !== undefined) await end(child.pid, "adaptor");
    });
    await until("the adaptor to listen", 30_000, () => {
      if (child.exitCode !== null) throw new Error(`the adaptor ended: ${readFileSync(logPath, "utf8").slice(-2000)}`);
      return existsSync(join(runDir, "adaptor.sock"));
    });
  }
}

/** One image for all measurements of a run; packages and their tree come from the usual cache. */
function vmImage(scope: BenchScope): string {
  return join(scope.folder, "podvm");
}

async function end(pid: number, what: string): Promise<void> {
  signal(pid, "SIGTERM");
  await until(`${what} to end`, 30_000, () => !isAlive(pid));
}
