import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../../lint/imports.ts";
import { isAlive, signal, until } from "./processes.ts";
import { inNetwork, must, type Outcome, type Running, type RunOptions, run, start } from "./run-command.ts";

export const ROOT = repositoryRoot(import.meta.dirname);
/** Where Debian's containernetworking-plugins are. */
const CNI_BIN = "/usr/lib/cni";
/** The runtime as `ctr` names it. */
export const RUNTIME = "io.containerd.kata-remote.v2";

/** Handler of containerd 2 whose pods have no sandbox container. */
export const API_HANDLER = "kata-remote-api";

/** containerd 2 would mix its advice into a container's stderr. */
export const CTR_ENV: NodeJS.ProcessEnv = { ...process.env, CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS: "1" };

export interface ContainerdOptions {
  /** Everything of this containerd lives here; its path must stay short enough for unix sockets. */
  readonly folder: string;
  /** Environment of containerd, and so of the shim launcher. PATH must lead to the launcher. */
  readonly env: NodeJS.ProcessEnv;
  /** Network namespace that it runs in, with all that it starts; this process's own unless given. */
  readonly netns?: string | undefined;
  /** The CNI's configuration list; a bridge without a way out unless given. */
  readonly cni?: object | undefined;
}

/** A containerd of its own, with the shipped handler configuration and nothing of the machine's. */
export class Containerd {
  readonly address: string;
  readonly #folder: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #netns: string | undefined;
  readonly #bridge = `kr${randomBytes(5).toString("hex")}`;
  #child: ChildProcess | undefined;

  private constructor(options: ContainerdOptions) {
    this.#folder = options.folder;
    this.#env = options.env;
    this.#netns = options.netns;
    this.address = join(options.folder, "c.sock");
  }

  static async start(options: ContainerdOptions): Promise<Containerd> {
    const containerd = new Containerd(options);
    mkdirSync(join(options.folder, "cni"), { recursive: true });
    const version = await must("containerd", ["--version"]);
    writeFileSync(join(options.folder, "config.toml"), configuration(options.folder, / v?2\./.test(version) ? 3 : 2));
    writeFileSync(
      join(options.folder, "cni", "10-test.conflist"),
      JSON.stringify(options.cni ?? network(options.folder, containerd.#bridge)),
    );
    await containerd.start();
    return containerd;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error("containerd does not run");
    return this.#child.pid;
  }

  get logPath(): string {
    return join(this.#folder, "containerd.log");
  }

  async start(): Promise<void> {
    const log = openSync(this.logPath, "a");
    const { command, args } = inNetwork(this.#netns, "containerd", ["--config", join(this.#folder, "config.toml")]);
    const child = spawn(command, args, {
      stdio: ["ignore", log, log],
      env: this.#env,
      detached: true, // its own process group: a Ctrl-C in the test run must not reach it before the test does
    });
    this.#child = child;
    await until(
      "containerd to answer",
      60_000,
      async () => {
        if (child.exitCode !== null) throw new Error(`containerd ended with ${child.exitCode}: ${this.log(4000)}`);
        return (await this.tryCtr(["version"])).code === 0;
      },
      () => this.log(4000),
    );
  }

  /** Ends containerd as `systemctl stop` does: only the main process; what it started stays. */
  async stop(how: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    signal(pid, how);
    await until("containerd to end", 60_000, () => !isAlive(pid));
    this.#child = undefined;
  }

  /** Stops containerd for good and removes the bridge that its pods had. */
  async close(): Promise<void> {
    await this.stop();
    const { command, args } = inNetwork(this.#netns, "ip", ["link", "del", this.#bridge]);
    await run(command, args); // there is none when no pod came through the CRI plugin
  }

  async restart(how: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    await this.stop(how);
    await this.start();
  }

  /** Newest part of containerd's log (the shim's log lines come through it too). */
  log(bytes: number): string {
    return readFileSync(this.logPath, "utf8").slice(-bytes);
  }

  ctrArgs(args: readonly string[], namespace = "default"): string[] {
    const words = args[0] === "task" ? 2 : 1;
    // ctr leaves the FIFOs of some tasks behind: they go with this folder.
    const fifos = /^(run|task exec|task start)$/.test(args.slice(0, words).join(" "))
      ? ["--fifo-dir", join(this.#folder, "fifo")]
      : [];
    return [
      "--address",
      this.address,
      "--namespace",
      namespace,
      ...args.slice(0, words),
      ...fifos,
      ...args.slice(words),
    ];
  }

  tryCtr(args: readonly string[], options: RunOptions & { readonly namespace?: string } = {}): Promise<Outcome> {
    return run("ctr", this.ctrArgs(args, options.namespace), { env: CTR_ENV, ...options });
  }

  startCtr(args: readonly string[], options: RunOptions & { readonly namespace?: string } = {}): Running {
    return start("ctr", this.ctrArgs(args, options.namespace), { env: CTR_ENV, ...options });
  }

  /** `ctr` that must succeed. */
  ctr(args: readonly string[], options: RunOptions & { readonly namespace?: string } = {}): Promise<string> {
    return must("ctr", this.ctrArgs(args, options.namespace), { env: CTR_ENV, ...options });
  }

  /** One container to its end in a pod VM of its own. */
  runContainer(
    id: string,
    image: string,
    command: readonly string[],
    options: RunOptions & { readonly namespace?: string; readonly flags?: readonly string[] } = {},
  ): Promise<Outcome> {
    const flags = ["run", "--rm", "--runtime", RUNTIME, ...(options.flags ?? [])];
    return this.tryCtr([...flags, image, id, ...command], options);
  }

  /** Ends a task, whatever state it is in, and forgets it. @returns its exit code */
  async endTask(id: string, signalName = "SIGKILL", namespace = "default"): Promise<number> {
    await this.tryCtr(["task", "kill", "-s", signalName, id], { namespace }); // it may have ended by itself
    await until(`task ${id} to stop`, 120_000, async () => (await this.taskStatus(id, namespace)) !== "RUNNING");
    const { code, stderr } = await this.tryCtr(["task", "rm", id], { namespace });
    await this.tryCtr(["container", "rm", id], { namespace });
    // ctr tells another code than 0 in a warning only.
    return code === 0 ? Number(/exit with non-zero exit code (\d+)/.exec(stderr)?.[1] ?? 0) : -1;
  }

  /** State of a task as `ctr task ls` shows it, undefined when there is no such task. */
  async taskStatus(id: string, namespace = "default"): Promise<string | undefined> {
    const { stdout } = await this.tryCtr(["task", "ls"], { namespace });
    const line = stdout.split("\n").find((l) => l.split(/\s+/)[0] === id);
    return line?.split(/\s+/)[2];
  }
}

/** A bridge without a way out: pods on one host reach each other, which is all that the tests need. */
function network(folder: string, bridge: string): object {
  const subnet = `10.234.${Number.parseInt(bridge.slice(-2), 16)}.0/24`;
  const ipam = {
    type: "host-local",
    dataDir: join(folder, "ipam"),
    ranges: [[{ subnet }]],
    routes: [{ dst: "0.0.0.0/0" }],
  };
  return {
    cniVersion: "0.4.0",
    name: "kata-remote-test",
    plugins: [{ type: "bridge", bridge, isGateway: true, ipMasq: false, ipam }],
  };
}

/** The fragment that we ship, and around it what keeps this containerd apart from any other. */
function configuration(folder: string, version: 2 | 3): string {
  const shipped = readFileSync(join(ROOT, "deploy", "containerd", `config-v${version}.toml`), "utf8");
  const cri = version === 2 ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.runtime";
  // Network namespaces where this test's leftovers are looked for. The table may be in the fragment already.
  const table = `[plugins."${cri}"]\n`;
  const netns = `${table}  netns_mounts_under_state_dir = true\n`;
  const fragment = shipped.replace(/^version = \d+$/m, "");
  const whole = version === 2 ? fragment : `${fragment}\n${withoutPause(cri)}`;
  const own = whole.includes(table) ? whole.replace(table, netns) : `${whole}\n${netns}`;
  return `${own}
[plugins."${cri}".cni]
  ${version === 2 ? `bin_dir = "${CNI_BIN}"` : `bin_dirs = ["${CNI_BIN}"]`}
  conf_dir = ${JSON.stringify(join(folder, "cni"))}
[plugins."io.containerd.internal.v1.opt"]
  path = ${JSON.stringify(join(folder, "opt"))}
`.replace(
    /^/,
    `version = ${version}
root = ${JSON.stringify(join(folder, "root"))}
state = ${JSON.stringify(join(folder, "state"))}
[grpc]
  address = ${JSON.stringify(join(folder, "c.sock"))}
`,
  );
}

/** A second handler whose pods are asked for by the Sandbox API. */
function withoutPause(cri: string): string {
  return `[plugins."${cri}".containerd.runtimes.${API_HANDLER}]
  runtime_type = "${RUNTIME}"
  sandboxer = "shim"
  pod_annotations = ["io.katacontainers.*"]
  container_annotations = ["io.kubernetes.container.terminationMessage*"]
`;
}
