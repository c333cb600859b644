import { createHash } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/shim.ts";
import { Status } from "../../src/gen/containerd/types/task/task.ts";
import { ControlDefinition } from "../../src/gen/kataremote/node/v1/control.ts";
import { Code, createClient, type ServiceClient, StatusError, TtrpcClient } from "../../src/ttrpc/index.ts";
import { until } from "../e2e/harness/processes.ts";
import { baseSpec, EventSink } from "../fakes/shim.ts";
import type { Timeline } from "./timeline.ts";

const ADDRESS = "/chaos/containerd.sock";
const NAMESPACE = "default";
/** As the launcher names the door. */
export const DOOR = `${NAMESPACE}@${ADDRESS}`;
/** One static program with the name of each of its parts. */
const BUSYBOX = "/bin/busybox";
const COMMAND = ["/bin/sleep", "86400"];
const KILL = 9;
/** Longer than any case waits: a call that nobody answers is the case's to find. */
const CALL_MS = 400_000;

/** What containerd knows of a pod of one container. */
export interface Pod {
  readonly id: string;
  /** Its creation was answered with success. */
  acknowledged: boolean;
  /** Its start was. */
  started: boolean;
  /** Exit codes that came as events. */
  readonly exits: number[];
  /** The connection that containerd holds to its shim was closed by the other side: to containerd, a dead shim. */
  shimDied: boolean;
  deleted: boolean;
  readonly client: TtrpcClient;
  readonly task: ServiceClient<typeof TaskDefinition>;
}

/** Plays containerd towards a node daemon: bundles, Task calls on one connection per pod, events, clean-up of dead shims. */
export class ContainerdStandIn {
  readonly #folder: string;
  readonly #runDir: string;
  readonly #sink: EventSink;
  readonly #timeline: Timeline;
  readonly #pods = new Map<string, Pod>();
  #seenEvents = 0;

  private constructor(options: { folder: string; runDir: string; timeline: Timeline }) {
    this.#folder = options.folder;
    this.#runDir = options.runDir;
    this.#timeline = options.timeline;
    this.#sink = new EventSink(join(options.folder, "e.sock"));
    this.#sink.beforeEach = async () => void setImmediate(() => this.#readEvents());
  }

  static async start(options: { folder: string; runDir: string; timeline: Timeline }): Promise<ContainerdStandIn> {
    const stand = new ContainerdStandIn(options);
    for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) {
      mkdirSync(join(options.folder, "image", name), { recursive: true });
    }
    // Only a real VM runs it; the agent in memory looks at no file.
    if (existsSync(BUSYBOX)) copyFileSync(BUSYBOX, join(options.folder, "image", "bin", "sleep"));
    await stand.#sink.listen();
    return stand;
  }

  /** A pod whose creation has not been asked for. */
  async open(id: string): Promise<Pod> {
    const client = new TtrpcClient(connect(this.#door));
    const task = createClient(TaskDefinition, client);
    const pod: Pod = { id, client, task, exits: [], ...NEW };
    this.#pods.set(id, pod);
    void client.closed.then(() => {
      if (pod.deleted) return;
      pod.shimDied = true;
      this.#timeline.note(`containerd: the shim of ${id} is gone`);
    });
    return pod;
  }

  /** Whether somebody listens where Task calls go. */
  async canConnect(): Promise<boolean> {
    const socket = connect(this.#door);
    const connected = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    return connected;
  }

  get #door(): string {
    const hash = createHash("sha256").update(DOOR).digest("hex").slice(0, 32);
    return join(this.#runDir, "s", `${hash}.sock`);
  }

  /** @throws what the shim answers */
  async create(pod: Pod): Promise<void> {
    const bundle = join(this.#folder, "bundles", pod.id);
    mkdirSync(join(bundle, "rootfs"), { recursive: true });
    const spec = baseSpec();
    const process = { ...(spec.process as object), args: COMMAND };
    writeFileSync(join(bundle, "config.json"), JSON.stringify({ ...spec, process }));
    writeFileSync(join(bundle, "kata-remote.env"), `TTRPC_ADDRESS=${join(this.#folder, "e.sock")}\nid=${pod.id}\n`);
    const rootfs = [{ type: "bind", source: join(this.#folder, "image"), target: "", options: ["rbind", "ro"] }];
    const io = { terminal: false, stdin: "", stdout: "", stderr: "" };
    const more = { checkpoint: "", parentCheckpoint: "", options: undefined };
    this.#timeline.step("create-asked");
    await pod.task.create({ id: pod.id, bundle, rootfs, ...io, ...more }, { timeoutMs: CALL_MS });
    pod.acknowledged = true;
    this.#timeline.step("created");
  }

  async start(pod: Pod): Promise<void> {
    await pod.task.start({ id: pod.id, execId: "" }, { timeoutMs: CALL_MS });
    pod.started = true;
    this.#timeline.step("started");
  }

  /** Whether the pod runs: its shim says so and its guest answers. @returns undefined, or what is wrong */
  async problemWith(pod: Pod): Promise<string | undefined> {
    if (pod.shimDied) return "containerd's connection to its shim was closed";
    if (pod.exits.length > 0) return `containerd was told that it exited with ${pod.exits.join(", ")}`;
    try {
      // A daemon that was just killed starts first, which takes seconds on a busy machine.
      const { status } = await pod.task.state({ id: pod.id, execId: "" }, { timeoutMs: 30_000 });
      if (status !== Status.RUNNING) return `its state is ${status}`;
      await pod.task.stats({ id: pod.id }, { timeoutMs: 10_000 });
      return undefined;
    } catch (e) {
      return `it does not answer: ${messageOf(e)}`;
    }
  }

  /** Kills the container, waits for its end, deletes the task. @throws what the shim answers */
  async end(pod: Pod): Promise<void> {
    await pod.task.kill({ id: pod.id, execId: "", signal: KILL, all: false }, { timeoutMs: CALL_MS });
    await pod.task.wait({ id: pod.id, execId: "" }, { timeoutMs: CALL_MS });
    await this.remove(pod);
  }

  /** Deletes a task that has ended. To containerd one that is not there is deleted. Source: its runtime/v2/shim.go */
  async remove(pod: Pod): Promise<void> {
    await pod.task.delete({ id: pod.id, execId: "" }, { timeoutMs: CALL_MS }).catch((e: unknown) => {
      if (!(e instanceof StatusError && e.code === Code.notFound)) throw e;
      this.#timeline.note(`containerd: ${pod.id} was deleted before: ${messageOf(e)}`);
    });
    pod.deleted = true;
    this.#timeline.step("deleted");
    await this.cleanUp(pod);
  }

  /** What containerd does after a failed creation, after each deletion, and for a shim that died. Repeatable. */
  async cleanUp(pod: Pod): Promise<void> {
    pod.deleted = true;
    pod.client.close();
    this.#pods.delete(pod.id);
    await until(`the clean-up of ${pod.id} to be taken`, CALL_MS, async () => {
      using client = new TtrpcClient(connect(join(this.#runDir, "control.sock")));
      const control = createClient(ControlDefinition, client);
      const request = { containerdAddress: ADDRESS, namespace: NAMESPACE, id: pod.id };
      return await control.cleanup(request, { timeoutMs: 10_000 }).then(
        () => true,
        () => false,
      );
    });
  }

  /** The node is gone or was rebooted: containerd forgets everything and asks nobody. */
  forget(): void {
    for (const pod of this.#pods.values()) {
      pod.deleted = true;
      pod.client.close();
    }
    this.#pods.clear();
  }

  async close(): Promise<void> {
    this.forget();
    await this.#sink.close();
  }

  #readEvents(): void {
    for (const { topic, message } of this.#sink.events.slice(this.#seenEvents)) {
      this.#seenEvents++;
      const pod = this.#pods.get(String(message.containerId));
      if (topic !== "/tasks/exit" || pod === undefined) continue;
      pod.exits.push(Number(message.exitStatus));
      this.#timeline.note(`containerd: ${pod.id} exited with ${String(message.exitStatus)}`);
      this.#timeline.step("exit-seen");
    }
  }
}

const NEW = { acknowledged: false, started: false, shimDied: false, deleted: false };

export function messageOf(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
