import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { background, type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Mutex } from "../../base/mutex.ts";
import { race } from "../../base/retry.ts";
import { OciProcess, type OciResources, parseOci, processToProto, resourcesToProto } from "../agent/index.ts";
import {
  ContainerVolumes,
  type CopyLimits,
  type FollowedVolume,
  type NodeFiles,
  type VolumeWatch,
} from "../volumes/index.ts";
import type { ContainerEvent, Emit, Exit, Stdio } from "./container-event.ts";
import type { ContainerRecord } from "./container-record.ts";
import { type EncodedStats, encodeStats } from "./container-stats.ts";
import { type EndOfProcess, GuestProcess, type GuestProcessDeps, SIGKILL, UNKNOWN_EXIT } from "./guest-process.ts";
import type { PodRole } from "./pod-role.ts";
import type { PreparedContainer } from "./prepared-container.ts";

/** What is known of a container whoever made it, this daemon or an earlier one. */
export interface ContainerFacts {
  readonly id: string;
  readonly role: PodRole;
  readonly stdio: Stdio;
  readonly emit: Emit;
  /** Writes its record, for the next daemon. */
  readonly save: () => Promise<void>;
  /** File of the node that gets the termination message. */
  readonly messageFile: string | undefined;
  /** Where its root file system came from. */
  readonly rootfs: "node" | "guest";
  /** Volumes that it has a copy of, as they are in the guest now. */
  readonly volumes: readonly FollowedVolume[];
}

export function containerFacts(prepared: PreparedContainer, volumes: readonly FollowedVolume[]): ContainerFacts {
  const { request, role, root } = prepared;
  const { id, stdio, emit, save } = request;
  const messageFile = terminationMessageFile(prepared);
  return { id, role, stdio, emit, save, messageFile, rootfs: root.kind, volumes };
}

interface Exec {
  readonly process: GuestProcess;
  /** What it shall run, JSON. */
  readonly spec: string;
  readonly addKey: string | undefined;
}

/** How long a force-deleted container may take to die before it is given up, ms. */
const FORCE_DELETE_MS = 10_000;

export interface ContainerDeps extends Omit<GuestProcessDeps, "onExit" | "beforeExit" | "save"> {
  readonly volumeWatch: VolumeWatch;
  readonly files: NodeFiles;
  readonly copyLimits: CopyLimits;
  /** Its first process ended: the pod goes down with its sandbox container. */
  readonly onEnd: (container: Container, exit: Exit) => void;
}

export type ContainerState = "created" | "running" | "paused" | "stopped";

/** One container of a pod, as containerd sees it; it exists in the guest already. */
export class Container {
  readonly id: string;
  readonly role: PodRole;
  readonly init: GuestProcess;
  readonly #deps: ContainerDeps;
  readonly #facts: ContainerFacts;
  readonly #execs = new Map<string, Exec>();
  readonly #volumes: ContainerVolumes;
  readonly #turn = new Mutex();
  #paused = false;
  #pauseKey: string | undefined;
  #silent = false;
  #removal: Promise<void> | undefined;

  constructor(facts: ContainerFacts, deps: ContainerDeps) {
    this.id = facts.id;
    this.role = facts.role;
    this.#facts = facts;
    this.#deps = deps;
    const { save } = facts;
    this.#volumes = new ContainerVolumes(facts.volumes, {
      ...{ watch: deps.volumeWatch, files: deps.files, agent: deps.agent, limits: deps.copyLimits, life: deps.life },
      ...{ save, log: deps.log.child({ container: facts.id }) },
    });
    this.init = new GuestProcess({ containerId: this.id, execId: this.id }, facts.stdio, {
      ...deps,
      save: facts.save,
      beforeExit: (call) => this.#saveTerminationMessage(call),
      onExit: (exit, how) => this.#onInitExit(exit, how),
    });
  }

  /** For the next daemon. */
  get record(): ContainerRecord {
    const { role, stdio, messageFile, rootfs } = this.#facts;
    return {
      role: { ...role, pod: { ...role.pod } },
      stdio: { ...stdio },
      ...(messageFile === undefined ? {} : { messageFile }),
      rootfs,
      volumes: this.#volumes.records,
      paused: this.#paused,
      ...(this.#pauseKey === undefined ? {} : { pauseKey: this.#pauseKey }),
      init: this.init.record,
      execs: [...this.#execs].map(([execId, { process, spec, addKey }]) => ({
        ...{ execId, guestId: process.ref.execId, spec, stdio: { ...process.stdio }, process: process.record },
        ...(addKey === undefined ? {} : { addKey }),
      })),
    };
  }

  /** Goes on with a container of an earlier daemon. @param expected keys of Task calls that will come again */
  restore(record: ContainerRecord, expected: ReadonlySet<string>): void {
    this.#paused = record.paused;
    this.#pauseKey = record.pauseKey;
    for (const { execId, guestId, spec, stdio, addKey, process } of record.execs) {
      const exec = { process: this.#newExec(execId, guestId, stdio), spec, addKey };
      this.#execs.set(execId, exec);
      exec.process.restore(process, expected);
    }
    this.init.restore(record.init, expected);
    // Its end was known, what follows from it may not have been done.
    if (this.init.exit !== undefined) this.#deps.onEnd(this, this.init.exit);
  }

  get rootfs(): "node" | "guest" {
    return this.#facts.rootfs;
  }

  /** Belongs to the pod itself: the pod ends with it. */
  get isSandbox(): boolean {
    return this.role.containerType !== "pod_container";
  }

  get state(): ContainerState {
    return this.#paused && this.init.state === "running" ? "paused" : this.init.state;
  }

  /** @param execId "" = the container's first process. @throws Fault not_found */
  process(execId: string): GuestProcess {
    if (execId === "") return this.init;
    const found = this.#execs.get(execId);
    if (found === undefined)
      throw new Fault("not_found", `container ${this.id} has no process "${execId}"`, { container: this.id });
    return found.process;
  }

  /** No event of this container is reported from now on: containerd reports its end itself. */
  silence(): void {
    this.#silent = true;
  }

  async start(call: Call): Promise<void> {
    const begin = (c: Call): Promise<void> => this.#deps.agent.startContainer(this.id, c);
    await this.#turn.run(() => this.init.start(begin, () => this.#emit({ kind: "start" }), call));
  }

  /** @param spec the process of the OCI runtime spec, JSON. The same request again is success. */
  async addExec(execId: string, spec: string, stdio: Stdio, call: Call): Promise<void> {
    parseOci(OciProcess, spec, `exec spec of ${execId}`);
    const addKey = call.requestKey;
    if (addKey !== undefined && this.#execs.get(execId)?.addKey === addKey) return;
    if (this.#execs.has(execId) || execId === this.id) {
      throw new Fault(
        "already_exists",
        `container ${this.id} has a process "${execId}" already; choose another exec id`,
        { container: this.id },
      );
    }
    if (this.init.state === "stopped") throw this.#notRunning("run a process");
    // Its own name in the guest: containerd may use the id again as soon as it has deleted the process.
    this.#execs.set(execId, { process: this.#newExec(execId, randomUUID(), stdio), spec, addKey });
    await this.#emit({ kind: "exec-added", execId });
    await this.#facts.save();
  }

  async startExec(execId: string, call: Call): Promise<void> {
    const exec = this.process(execId);
    const spec = this.#execs.get(execId)?.spec;
    if (this.state !== "running" || spec === undefined) throw this.#notRunning("run a process");
    const process = { ...parseOci(OciProcess, spec, `exec spec of ${execId}`), terminal: exec.stdio.terminal };
    const begin = (c: Call): Promise<void> => this.#deps.agent.execProcess(exec.ref, processToProto(process), c);
    await exec.start(begin, () => this.#emit({ kind: "exec-started", execId }), call);
  }

  has(execId: string): boolean {
    return this.#execs.has(execId);
  }

  /** @param remember called before it is forgotten. @throws Fault failed_precondition while it runs */
  async deleteExec(execId: string, remember: (exit: Exit) => Promise<void>): Promise<Exit> {
    const exec = this.process(execId);
    if (exec.state === "running")
      throw new Fault("failed_precondition", `process "${execId}" of container ${this.id} is running; kill it first`);
    if (exec.exit === undefined) exec.force(UNKNOWN_EXIT);
    await exec.release();
    await remember(exec.exit as Exit);
    this.#execs.delete(execId);
    await this.#facts.save();
    return exec.exit as Exit;
  }

  async pause(call: Call): Promise<void> {
    await this.#turn.run(async () => {
      if (this.#paused && this.#isRepeated(call)) return;
      if (this.state !== "running") throw this.#notRunning("be paused");
      await this.#deps.agent.pause(this.id, call);
      await this.#setPaused(true, call);
    });
  }

  async resume(call: Call): Promise<void> {
    await this.#turn.run(async () => {
      if (!this.#paused && this.#isRepeated(call)) return;
      if (this.state !== "paused")
        throw new Fault("failed_precondition", `container ${this.id} cannot be resumed: it is ${this.state}`);
      await this.#deps.agent.resume(this.id, call);
      await this.#setPaused(false, call);
    });
  }

  async stats(hostCgroup: "v1" | "v2", call: Call): Promise<EncodedStats> {
    if (this.init.state === "stopped") throw this.#notRunning("be measured");
    return encodeStats(await this.#deps.agent.stats(this.id, call), hostCgroup);
  }

  async update(resources: OciResources, call: Call): Promise<void> {
    if (this.init.state === "stopped") throw this.#notRunning("be updated");
    await this.#deps.agent.update(this.id, resourcesToProto(resources), call);
  }

  onOom(): void {
    void this.#emit({ kind: "oom" });
  }

  /** Kills what runs, removes it from the guest and reports the deletion. Repeatable. */
  async delete(call: Call): Promise<Exit> {
    return await this.#turn.run(async () => {
      if (this.init.state !== "stopped") {
        await this.init
          .kill(SIGKILL, call)
          .catch((err: unknown) => this.#deps.log.warn({ err, container: this.id }, "container not killed"));
        await this.init.wait(withDeadline(FORCE_DELETE_MS, call)).catch(() => this.init.force(128 + SIGKILL));
      }
      const exit = this.init.exit as Exit;
      if (!this.isSandbox) await race(this.removeFromGuest(), call);
      for (const exec of this.#execs.values()) await exec.process.release();
      await this.init.release();
      await this.#emit({ kind: "delete", ...exit });
      return exit;
    });
  }

  /** Ends every process here, whatever the guest does. */
  force(status: number): void {
    for (const exec of this.#execs.values()) exec.process.force(status);
    this.init.force(status);
  }

  /** Takes what is left of an ended container out of the guest, once; never rejects. */
  removeFromGuest(): Promise<void> {
    this.#removal ??= this.#removeFromGuest();
    return this.#removal;
  }

  async #removeFromGuest(): Promise<void> {
    const { agent, life, log } = this.#deps;
    // The exit codes of its other processes are gone with it: they get a moment to be fetched.
    const execs = [...this.#execs.values()].map((e) => e.process).filter((e) => e.state === "running");
    const soon = withDeadline(5_000);
    await Promise.all(execs.map((e) => e.wait(soon).catch(() => undefined)));
    await this.#volumes.stop();
    if (life.aborted) return;
    try {
      await agent.removeContainer(this.id, { signal: life });
    } catch (err) {
      if (!life.aborted) log.warn({ err, container: this.id }, "container not removed from the guest");
    }
  }

  #onInitExit(exit: Exit, how: EndOfProcess): Promise<void> {
    const reported = how === "start-failed" ? Promise.resolve() : this.#emit({ kind: "exit", processId: "", ...exit });
    this.#deps.onEnd(this, exit);
    return reported;
  }

  #newExec(execId: string, guestId: string, stdio: Stdio): GuestProcess {
    return new GuestProcess({ containerId: this.id, execId: guestId }, stdio, {
      ...this.#deps,
      save: this.#facts.save,
      onExit: (exit, how) =>
        how === "ran" ? this.#emit({ kind: "exit", processId: execId, ...exit }) : Promise.resolve(),
    });
  }

  async #setPaused(paused: boolean, call: Call): Promise<void> {
    this.#paused = paused;
    this.#pauseKey = call.requestKey;
    await this.#emit({ kind: paused ? "paused" : "resumed" });
    await this.#facts.save();
  }

  #isRepeated(call: Call): boolean {
    return call.requestKey !== undefined && call.requestKey === this.#pauseKey;
  }

  #emit(event: ContainerEvent): Promise<void> {
    return this.#silent ? Promise.resolve() : this.#facts.emit(event);
  }

  #notRunning(what: string): Fault {
    return new Fault("failed_precondition", `container ${this.id} cannot ${what}: it is ${this.state}`, {
      container: this.id,
    });
  }

  async #saveTerminationMessage(call: Call): Promise<void> {
    const file = this.#facts.messageFile;
    if (file === undefined) return;
    try {
      await writeFile(file, await this.#deps.agent.terminationLog(this.id, call));
    } catch (err) {
      // Agents before 4.x cannot; the exit itself is worth more than the message.
      this.#deps.log.warn({ err, container: this.id, file }, "termination message not fetched");
    }
  }
}

/**
 * Kubernetes reads the termination message from a file of the node that the guest has only a copy of, whatever the
 * policy: "FallbackToLogsOnError" looks there first. Source: reference §2.10; kubelet's container directory.
 */
function terminationMessageFile({ plan }: PreparedContainer): string | undefined {
  return plan.copies.find((c) => c.role === "termination-log")?.source;
}

/** Undo of a creation that may have reached the guest. */
export async function removeHalfCreated(
  deps: Pick<ContainerDeps, "agent" | "log" | "life">,
  id: string,
): Promise<void> {
  if (deps.life.aborted) return;
  await deps.agent
    .removeContainer(id, withDeadline(10_000, background()))
    .catch((err: unknown) => deps.log.debug({ err, container: id }, "half-created container not removed"));
}
