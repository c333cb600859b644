import { randomUUID } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AdminDefinition } from "../../src/gen/kataremote/podvm/v1/admin.ts";
import { PodVmDefinition } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import { processesOf, signal, until } from "../e2e/harness/processes.ts";
import type { PodVmClient } from "../fakes/adaptor-under-test.ts";
import { Balancer } from "./balancer.ts";
import type { Cloud } from "./cloud.ts";
import { CLOUDS, type CloudKind, hasRealVms } from "./clouds.ts";
import { ContainerdStandIn, DOOR } from "./containerd-stand-in.ts";
import { DaemonProcess } from "./daemon-process.ts";
import type { GuestPool } from "./guests.ts";
import { RedisPlace } from "./redis-place.ts";
import { watchStalls } from "./stalls.ts";
import { Timeline } from "./timeline.ts";
import {
  type AdaptorPlace,
  type AdaptorSetup,
  adaptorPlace,
  type StoreKind,
  writeAdaptorConfig,
  writeNodeConfig,
} from "./world-config.ts";

/** What all worlds of a run share. */
export interface WorldDeps {
  /** The kata-remote command's script. */
  readonly program: string;
  /** The same of what plays the next version. */
  readonly nextProgram: string;
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

/** What a world is made of: cases that want the same may share one. */
export interface WorldKind {
  readonly store: StoreKind;
  readonly cloud: CloudKind;
  readonly adaptors: AdaptorSetup;
}

/** An adaptor of a world. */
export interface WorldAdaptor extends AdaptorPlace {
  readonly process: DaemonProcess;
  /** Has the next start run the other version. */
  readonly changeVersion: () => void;
}

/**
 * One kata-remote with everything around it: adaptors and node daemon as processes, a cloud, a Redis when the store is
 * one, and what plays containerd.
 */
export class World implements AsyncDisposable {
  readonly folder: string;
  readonly timeline: Timeline;
  readonly kind: WorldKind;
  readonly cloud: Cloud;
  readonly redis: RedisPlace | undefined;
  /** One, or two on one store. */
  readonly adaptors: readonly WorldAdaptor[];
  readonly node: DaemonProcess;
  readonly containerd: ContainerdStandIn;
  /** For how long this process did not get to run since the world began, all stalls together. */
  stalledMs = 0;
  readonly #runDir: string;
  readonly #endWatch: () => void;
  #balancer: Balancer | undefined;

  private constructor(parts: {
    folder: string;
    timeline: Timeline;
    kind: WorldKind;
    cloud: Cloud;
    redis: RedisPlace | undefined;
    containerd: ContainerdStandIn;
    programs: Pick<WorldDeps, "program" | "nextProgram">;
  }) {
    const { folder, kind, cloud, redis } = parts;
    const { program, nextProgram } = parts.programs;
    this.folder = folder;
    this.timeline = parts.timeline;
    this.kind = kind;
    this.cloud = cloud;
    this.redis = redis;
    this.containerd = parts.containerd;
    this.#runDir = join(folder, "run");
    this.#endWatch = watchStalls((ms) => {
      this.stalledMs += ms;
      this.timeline.note(`the machine stood still for ${Math.round(ms)} ms`);
    });
    const shared = {
      env: { ...process.env, ...cloud.env, KATA_REMOTE_RUN_DIR: this.#runDir, KATA_REMOTE_SUPERVISED: "1" },
      onEnd: (how: string) => this.timeline.note(how),
      onMessage: (message: string) => {
        const step = LOG_STEPS[message];
        if (step !== undefined) this.timeline.step(step);
      },
    };
    this.adaptors = (kind.adaptors === "one" ? [0] : [0, 1]).map((n) => {
      const place = adaptorPlace(folder, kind.adaptors, n);
      writeAdaptorConfig(place, cloud, redis);
      const process_ = new DaemonProcess({
        ...shared,
        name: n === 0 ? "adaptor" : "adaptor-2",
        command: [process.execPath, program, "adaptor", "--config", place.toml],
        logPath: place.log,
        readyMessage: "adaptor ready",
      });
      const changeVersion = (): void => {
        const other = process_.command.includes(program) ? [program, nextProgram] : [nextProgram, program];
        process_.command = process_.command.map((word) => (word === other[0] ? (other[1] ?? word) : word));
      };
      return { ...place, process: process_, changeVersion };
    });
    // Mounts of its own, as the launcher gives them to it, and a boot id that a case can change.
    const bound = `mount --bind "${join(folder, "boot-id")}" /proc/sys/kernel/random/boot_id && exec "$@"`;
    const inNamespace = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", bound, "sh"];
    const nodeToml = writeNodeConfig(folder, { realVms: hasRealVms(kind.cloud) });
    this.node = new DaemonProcess({
      ...shared,
      name: "node daemon",
      command: [...inNamespace, process.execPath, program, "node", "--config", nodeToml, "--door", DOOR],
      logPath: join(folder, "node.log"),
      readyMessage: "node daemon serves",
    });
  }

  static async open(options: WorldDeps & WorldKind): Promise<World> {
    const { store, adaptors } = options;
    if (adaptors !== "one" && store !== "redis") throw new Error("two adaptors share a store only when it is redis");
    const folder = mkdtempSync(join(tmpdir(), "krc-"));
    const timeline = new Timeline();
    await using parts = new AsyncDisposableStack();
    parts.defer(() => rmSync(folder, { recursive: true, force: true }));
    const runDir = join(folder, "run");
    mkdirSync(runDir, { mode: 0o700 });
    writeFileSync(join(folder, "boot-id"), `${randomUUID()}\n`);
    const cloud = parts.use(await CLOUDS[options.cloud]({ ...options, folder, timeline }));
    const redis = store === "redis" ? parts.use(await RedisPlace.start()) : undefined;
    const containerd = await ContainerdStandIn.start({ folder, runDir, timeline });
    parts.defer(() => containerd.close());
    const kind = { store, cloud: options.cloud, adaptors };
    const world = new World({ folder, timeline, kind, cloud, redis, containerd, programs: options });
    parts.defer(() => world.#endWatch());
    parts.defer(() => world.#killAll());
    parts.defer(() => world.#balancer?.[Symbol.asyncDispose]());
    await Promise.all([world.#startAdaptors(), world.node.start()]);
    parts.move();
    return world;
  }

  /** The first adaptor. */
  get adaptor(): DaemonProcess {
    const [first] = this.adaptors;
    if (first === undefined) throw new Error("a world has an adaptor");
    return first.process;
  }

  /** The program of a name that faults use. */
  daemon(name: "adaptor" | "adaptor-2" | "node"): DaemonProcess {
    if (name === "node") return this.node;
    const found = this.adaptors[name === "adaptor" ? 0 : 1];
    if (found === undefined) throw new Error(`this world has no ${name}`);
    return found.process;
  }

  /** The adaptor's door, as a node has it; the caller closes it. */
  adaptorClient(): PodVmClient {
    return createClient(PodVmDefinition, { address: `unix://${join(this.#runDir, "adaptor.sock")}` });
  }

  get nodeId(): string {
    return readFileSync(join(this.folder, "state", "node", "node-id"), "utf8").trim();
  }

  /** What the store says, through an adaptor that runs. @throws Error when none answers */
  view(): Promise<StoreView> {
    return this.#ask(async (place) => {
      const [{ sandboxes }, { operations }] = await Promise.all([
        get<Pick<StoreView, "sandboxes">>(place, "/v1/sandboxes"),
        get<Pick<StoreView, "operations">>(place, "/v1/operations?limit=500"),
      ]);
      return { sandboxes, operations };
    });
  }

  /** Adaptors that lead in a reconcile loop now. */
  async leaders(): Promise<readonly WorldAdaptor[]> {
    const leads = async (place: WorldAdaptor): Promise<boolean> => {
      const { loops } = await get<{ loops: readonly { leads: boolean }[] }>(place, "/v1/reconcile");
      return loops.some((loop) => loop.leads);
    };
    const found = await Promise.all(this.adaptors.map((place) => leads(place).catch(() => false)));
    return this.adaptors.filter((_, n) => found[n] === true);
  }

  /** As an operator who has looked: what neither a record nor a node claims after a loss of the store is nobody's. */
  async confirmRecovery(): Promise<void> {
    await this.#ask(async ({ socket }) => {
      const admin = createClient(AdminDefinition, { address: `unix://${socket}` });
      try {
        const call = { signal: AbortSignal.timeout(10_000) };
        const { recovery } = JSON.parse((await admin.problems({}, call)).json) as { recovery: { epoch: string } };
        await admin.confirmRecovery({ epoch: recovery.epoch }, call);
        this.timeline.note("the operator confirms that the recovery is over");
      } finally {
        admin.close();
      }
    });
  }

  /** The node comes up again after a reboot: nothing of what ran on it is there. */
  async reboot(): Promise<void> {
    this.node.kill();
    this.killRelay();
    this.containerd.forget();
    await until("the relay to be gone", 10_000, () => this.#relays().length === 0);
    for (const name of readdirSync(this.#runDir)) {
      // The adaptor's sockets are only here because cases are short of path length: it runs elsewhere.
      if (!/^(adaptor|rest)(-\d)?\.sock$/.test(name))
        rmSync(join(this.#runDir, name), { recursive: true, force: true });
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
    const known = new Set([...this.adaptors.map((a) => a.process.pid), this.node.pid, this.#relays().at(-1)]);
    return processesOf(this.folder)
      .filter(({ pid }) => !known.has(pid))
      .map(({ pid, command }) => `process ${pid}: ${command.slice(0, 120)}`);
  }

  /** Ends everything; the folder with the logs stays only when it is asked for. */
  async close(keep: boolean): Promise<void> {
    this.#endWatch();
    await this.containerd.close();
    await this.#balancer?.[Symbol.asyncDispose]();
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
    // SIGKILL is not the end yet: what a busy host has no CPU for cannot end either.
    await until("killed processes to end", 60_000, () => processesOf(this.folder).length === 0);
  }

  /** The first one makes the CA, of which the second one has a copy. */
  async #startAdaptors(): Promise<void> {
    const [first, second] = this.adaptors;
    await first?.process.start();
    if (first === undefined || second === undefined) return;
    mkdirSync(second.stateDir, { recursive: true, mode: 0o700 });
    cpSync(join(first.stateDir, "ca"), join(second.stateDir, "ca"), { recursive: true });
    await second.process.start();
    if (this.kind.adaptors === "balanced") {
      this.#balancer = await Balancer.open(join(this.#runDir, "adaptor.sock"), [first.socket, second.socket]);
    }
  }

  /** Each adaptor in turn, until one answers. @throws Error of the last one */
  async #ask<T>(question: (adaptor: WorldAdaptor) => Promise<T>): Promise<T> {
    let last: unknown;
    for (const adaptor of this.adaptors) {
      try {
        return await question(adaptor);
      } catch (e) {
        last = e;
      }
    }
    throw last;
  }
}

function get<T>({ rest }: WorldAdaptor, path: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: rest, path, timeout: 5_000 }, (reply) => {
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
