import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { AdminDefinition } from "../../src/gen/kataremote/podvm/v1/admin.ts";
import { PodVmDefinition } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import { processesOf, signal, until } from "../e2e/harness/processes.ts";
import type { PodVmClient } from "../fakes/adaptor-under-test.ts";
import type { Cloud } from "./cloud.ts";
import { ContainerdStandIn, DOOR } from "./containerd-stand-in.ts";
import { DaemonProcess } from "./daemon-process.ts";
import { Ec2Cloud } from "./ec2-cloud.ts";
import type { GuestPool } from "./guests.ts";
import { LocalCloud } from "./local-cloud.ts";
import { RedisPlace } from "./redis-place.ts";
import { Timeline } from "./timeline.ts";

export type StoreKind = "embedded" | "redis";
/** ec2: a test account whose instances are processes. local: QEMU VMs of this host. */
export type CloudKind = "ec2" | "local";

/** What all worlds of a run share. */
export interface WorldDeps {
  /** The kata-remote command's script. */
  readonly program: string;
  readonly pool: GuestPool;
  /** Directory of the pod VM image for QEMU; made when it is first asked for. */
  readonly vmImage: () => Promise<string>;
}

/** Steps that our programs' logs tell. */
const LOG_STEPS: Readonly<Record<string, string>> = {
  "sandbox prepared": "prepared",
  "VM started": "accepted",
  "root file system is in the guest": "rootfs-sent",
  "stopping pod VM": "node-stopping",
  "sandbox is being stopped": "stop-recorded",
  "pod VM stopped": "stop-delivered",
  "pod VM removed": "removed",
};

export interface StoreView {
  readonly sandboxes: readonly {
    readonly id: string;
    readonly phase: string;
    readonly pod: { readonly name: string };
  }[];
  readonly operations: readonly { readonly id: string; readonly kind: string; readonly state: string }[];
}

/**
 * One kata-remote with everything around it: adaptor and node daemon as processes, a cloud, a Redis when the store is
 * one, and what plays containerd. Timings are short, so that bounds are.
 */
export class World implements AsyncDisposable {
  readonly folder: string;
  readonly timeline = new Timeline();
  readonly cloud: Cloud;
  readonly redis: RedisPlace | undefined;
  readonly cloudKind: CloudKind;
  readonly adaptor: DaemonProcess;
  readonly node: DaemonProcess;
  readonly containerd: ContainerdStandIn;
  readonly #runDir: string;

  private constructor(parts: {
    folder: string;
    timeline: Timeline;
    cloud: Cloud;
    redis: RedisPlace | undefined;
    containerd: ContainerdStandIn;
    program: string;
  }) {
    this.folder = parts.folder;
    this.timeline = parts.timeline;
    this.cloud = parts.cloud;
    this.redis = parts.redis;
    this.cloudKind = parts.cloud instanceof LocalCloud ? "local" : "ec2";
    this.containerd = parts.containerd;
    this.#runDir = join(parts.folder, "run");
    const { adaptorToml, nodeToml, bootId } = writeConfigurations(parts.folder, parts.cloud, parts.redis);
    const shared = {
      env: { ...process.env, ...Ec2Cloud.env, KATA_REMOTE_RUN_DIR: this.#runDir, KATA_REMOTE_SUPERVISED: "1" },
      onEnd: (how: string) => this.timeline.note(how),
      onMessage: (message: string) => {
        const step = LOG_STEPS[message];
        if (step !== undefined) this.timeline.step(step);
      },
    };
    this.adaptor = new DaemonProcess({
      ...shared,
      name: "adaptor",
      command: [process.execPath, parts.program, "adaptor", "--config", adaptorToml],
      logPath: join(parts.folder, "adaptor.log"),
      readyMessage: "adaptor ready",
    });
    // Mounts of its own, as the launcher gives them to it, and a boot id that a case can change.
    const bound = `mount --bind "${bootId}" /proc/sys/kernel/random/boot_id && exec "$@"`;
    const inNamespace = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", bound, "sh"];
    this.node = new DaemonProcess({
      ...shared,
      name: "node daemon",
      command: [...inNamespace, process.execPath, parts.program, "node", "--config", nodeToml, "--door", DOOR],
      logPath: join(parts.folder, "node.log"),
      readyMessage: "node daemon serves",
    });
  }

  static async open(options: WorldDeps & { readonly store: StoreKind; readonly cloud: CloudKind }): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), "krc-"));
    const timeline = new Timeline();
    await using parts = new AsyncDisposableStack();
    parts.defer(() => rmSync(folder, { recursive: true, force: true }));
    const runDir = join(folder, "run");
    mkdirSync(runDir, { mode: 0o700 });
    writeFileSync(join(folder, "boot-id"), `${randomUUID()}\n`);
    const cloud = parts.use(await openCloud(options, folder, timeline));
    const redis = options.store === "redis" ? parts.use(await RedisPlace.start()) : undefined;
    const containerd = await ContainerdStandIn.start({ folder, runDir, timeline });
    parts.defer(() => containerd.close());
    const world = new World({ folder, timeline, cloud, redis, containerd, program: options.program });
    parts.defer(() => world.#killAll());
    await Promise.all([world.adaptor.start(), world.node.start()]);
    parts.move();
    return world;
  }

  get store(): StoreKind {
    return this.redis === undefined ? "embedded" : "redis";
  }

  /** The adaptor's door, as a node has it; the caller closes it. */
  adaptorClient(): PodVmClient {
    return createClient(PodVmDefinition, { address: `unix://${join(this.#runDir, "adaptor.sock")}` });
  }

  get nodeId(): string {
    return readFileSync(join(this.folder, "state", "node", "node-id"), "utf8").trim();
  }

  /** What the store says, through the adaptor that runs. @throws Error when none answers */
  async view(): Promise<StoreView> {
    const [{ sandboxes }, { operations }] = await Promise.all([
      this.#get<Pick<StoreView, "sandboxes">>("/v1/sandboxes"),
      this.#get<Pick<StoreView, "operations">>("/v1/operations?limit=500"),
    ]);
    return { sandboxes, operations };
  }

  /** As an operator who has looked: what neither a record nor a node claims after a loss of the store is nobody's. */
  async confirmRecovery(): Promise<void> {
    const admin = createClient(AdminDefinition, { address: `unix://${join(this.#runDir, "adaptor.sock")}` });
    try {
      const call = { signal: AbortSignal.timeout(10_000) };
      const { recovery } = JSON.parse((await admin.problems({}, call)).json) as { recovery: { epoch: string } };
      await admin.confirmRecovery({ epoch: recovery.epoch }, call);
      this.timeline.note("the operator confirms that the recovery is over");
    } finally {
      admin.close();
    }
  }

  /** The node comes up again after a reboot: nothing of what ran on it is there. */
  async reboot(): Promise<void> {
    this.node.kill();
    this.killRelay();
    this.containerd.forget();
    await until("the relay to be gone", 10_000, () => this.#relays().length === 0);
    for (const name of readdirSync(this.#runDir)) {
      // The adaptor's sockets are only here because cases are short of path length: it runs elsewhere.
      if (!/^(adaptor|rest)\.sock$/.test(name)) rmSync(join(this.#runDir, name), { recursive: true, force: true });
    }
    writeFileSync(join(this.folder, "boot-id"), `${randomUUID()}\n`);
    await this.node.start();
  }

  /** The process that holds the pods' connections, at once. @returns its pid */
  killRelay(): readonly number[] {
    const pids = this.#relays();
    for (const pid of pids) signal(pid, "SIGKILL");
    return pids;
  }

  /** The node daemon starts the next one. */
  async untilRelayServes(killed: readonly number[]): Promise<void> {
    // The sockets of a killed process with threads live on for a moment: the daemon starts the next one when they close.
    await until("the next relay to start", 30_000, () => this.#relays().some((pid) => !killed.includes(pid)));
    await until("the next relay to serve", 30_000, () => this.containerd.canConnect());
    this.timeline.note("the next relay serves");
  }

  /** What pods have left on the node, apart from its daemon. */
  nodeLeftovers(): string[] {
    const files = (name: string): string[] => {
      const path = join(this.#runDir, name);
      return existsSync(path) ? readdirSync(path).map((file) => `${name}/${file}`) : [];
    };
    const { pid } = this.node;
    const mounts = pid === undefined ? "" : readFileSync(`/proc/${pid}/mounts`, "utf8");
    return [
      ...["pending-stops", "tasks", "mnt"].flatMap(files),
      ...mounts
        .split("\n")
        .filter((line) => line.includes(join(this.#runDir, "mnt")))
        .map((line) => `mount ${line}`),
    ];
  }

  /** Processes of this world that nobody knows of. */
  strayProcesses(): string[] {
    // The node daemon's relay stays; a second one would be one that nobody ends.
    const known = new Set([this.adaptor.pid, this.node.pid, this.#relays().at(-1)]);
    return processesOf(this.folder)
      .filter(({ pid }) => !known.has(pid))
      .map(({ pid, command }) => `process ${pid}: ${command.slice(0, 120)}`);
  }

  /** Ends everything; the folder with the logs stays only when it is asked for. */
  async close(keep: boolean): Promise<void> {
    await this.containerd.close();
    await this.#killAll();
    await this.cloud[Symbol.asyncDispose]();
    await this.redis?.[Symbol.asyncDispose]();
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(false);
  }

  /** Their pids. */
  #relays(): number[] {
    const dir = join(this.#runDir, "r/");
    return processesOf(this.folder)
      .filter(({ command }) => command.includes(dir))
      .map(({ pid }) => pid)
      .sort((a, b) => a - b);
  }

  async #killAll(): Promise<void> {
    for (const { pid } of processesOf(this.folder)) signal(pid, "SIGKILL");
    await until("killed processes to end", 10_000, () => processesOf(this.folder).length === 0);
  }

  #get<T>(path: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: join(this.#runDir, "rest.sock"), path, timeout: 5_000 }, (reply) => {
        let text = "";
        reply.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        reply.on("end", () => {
          if (reply.statusCode === 200) resolve(JSON.parse(text) as T);
          else reject(new Error(`${path} answers ${reply.statusCode}: ${text.slice(0, 300)}`));
        });
      });
      asked.on("error", reject);
      asked.on("timeout", () => asked.destroy(new Error(`${path} does not answer`)));
      asked.end();
    });
  }
}

async function openCloud(
  options: WorldDeps & { readonly cloud: CloudKind },
  folder: string,
  timeline: Timeline,
): Promise<Cloud> {
  if (options.cloud === "ec2") return Ec2Cloud.open({ pool: options.pool, timeline });
  return new LocalCloud({ folder, imageDir: await options.vmImage(), timeline });
}

function writeConfigurations(folder: string, cloud: Cloud, redis: RedisPlace | undefined) {
  const runDir = join(folder, "run");
  const paths = {
    adaptorToml: join(folder, "adaptor.toml"),
    nodeToml: join(folder, "node.toml"),
    bootId: join(folder, "boot-id"),
  };
  const adaptor = {
    stateDir: join(folder, "state", "adaptor"),
    cluster: "chaos",
    provider: cloud.provider,
    providers: { [cloud.provider]: cloud.providerConfig },
    store:
      redis === undefined ? { kind: "embedded" } : { kind: "redis", url: redis.url, leaseMs: 1_500, timeoutMs: 1_500 },
    grpc: { socketPath: join(runDir, "adaptor.sock") },
    rest: { socketPath: join(runDir, "rest.sock") },
    nodes: { rebootQuietMs: 0, silentMs: 20_000, goneMs: 25_000 },
    reconcile: { intervalMs: 300, lostIntervalMs: 300, lostGraceMs: 3_000, orphanGraceMs: 2_000 },
    limits: { startTimeoutMs: 20_000, stopTimeoutMs: 20_000, consoleWaitMs: 1_000 },
  };
  // A real VM boots for seconds, and for many on a busy machine, where it also is silent for seconds.
  const slow = cloud.provider === "local";
  const node = {
    runDir,
    stateDir: join(folder, "state", "node"),
    keepAliveMs: 300,
    keepAliveDeadlineMs: slow ? 10_000 : 2_000,
    podNetwork: { bypassConntrack: false },
    remote: { patienceMs: 30_000 },
    shim: {
      // Longer than a case waits: who relies on it to end a start has let it hang.
      startVmTimeoutMs: 400_000,
      connectTimeoutMs: slow ? 90_000 : 15_000,
      guestLostAfterMs: slow ? 20_000 : 4_000,
    },
  };
  writeFileSync(paths.adaptorToml, stringify(adaptor));
  writeFileSync(paths.nodeToml, stringify(node));
  return paths;
}
