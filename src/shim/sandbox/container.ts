import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { background, type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Mutex } from "../../base/mutex.ts";
import { race } from "../../base/retry.ts";
import { type OciProcess, type OciResources, processToProto, resourcesToProto } from "../agent/index.ts";
import type { ContainerEvent, Emit, Exit, Stdio } from "./container-event.ts";
import { type EncodedStats, encodeStats } from "./container-stats.ts";
import { type EndOfProcess, GuestProcess, type GuestProcessDeps, SIGKILL, UNKNOWN_EXIT } from "./guest-process.ts";
import type { PodRole } from "./pod-role.ts";
import type { PreparedContainer } from "./prepared-container.ts";

/** How long a force-deleted container may take to die before it is given up, ms. */
const FORCE_DELETE_MS = 10_000;

export interface ContainerDeps extends Omit<GuestProcessDeps, "onExit" | "beforeExit"> {
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
  readonly #execs = new Map<string, GuestProcess>();
  /** What an exec shall run, until its start. */
  readonly #execSpecs = new WeakMap<GuestProcess, OciProcess>();
  readonly #turn = new Mutex();
  #paused = false;
  #silent = false;
  readonly #report: Emit;
  /** File of the node that gets the termination message. */
  readonly #messageFile: string | undefined;
  #removal: Promise<void> | undefined;

  constructor(prepared: PreparedContainer, deps: ContainerDeps) {
    this.id = prepared.request.id;
    this.role = prepared.role;
    this.#report = prepared.request.emit;
    this.#messageFile = terminationMessageFile(prepared);
    this.#deps = deps;
    this.init = new GuestProcess({ containerId: this.id, execId: this.id }, prepared.request.stdio, {
      ...deps,
      beforeExit: (call) => this.#saveTerminationMessage(call),
      onExit: (exit, how) => this.#onInitExit(exit, how),
    });
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
    return found;
  }

  /** No event of this container is reported from now on: containerd reports its end itself. */
  silence(): void {
    this.#silent = true;
  }

  async start(call: Call): Promise<void> {
    const begin = (c: Call): Promise<void> => this.#deps.agent.startContainer(this.id, c);
    await this.#turn.run(() => this.init.start(begin, () => this.#emit({ kind: "start" }), call));
  }

  addExec(execId: string, process: OciProcess, stdio: Stdio): void {
    if (this.#execs.has(execId) || execId === this.id) {
      throw new Fault(
        "already_exists",
        `container ${this.id} has a process "${execId}" already; choose another exec id`,
        { container: this.id },
      );
    }
    if (this.init.state === "stopped") throw this.#notRunning("run a process");
    // Its own name in the guest: containerd may use the id again as soon as it has deleted the process.
    const ref = { containerId: this.id, execId: randomUUID() };
    const exec = new GuestProcess(ref, stdio, {
      ...this.#deps,
      onExit: (exit, how) => {
        if (how === "ran") this.#emit({ kind: "exit", processId: execId, ...exit });
      },
    });
    this.#execs.set(execId, exec);
    this.#execSpecs.set(exec, { ...process, terminal: stdio.terminal });
    this.#emit({ kind: "exec-added", execId });
  }

  async startExec(execId: string, call: Call): Promise<void> {
    const exec = this.process(execId);
    const process = this.#execSpecs.get(exec);
    if (this.state !== "running" || process === undefined) throw this.#notRunning("run a process");
    const begin = (c: Call): Promise<void> => this.#deps.agent.execProcess(exec.ref, processToProto(process), c);
    await exec.start(begin, () => this.#emit({ kind: "exec-started", execId }), call);
  }

  /** @throws Fault failed_precondition while it runs */
  async deleteExec(execId: string): Promise<Exit> {
    const exec = this.process(execId);
    if (exec.state === "running")
      throw new Fault("failed_precondition", `process "${execId}" of container ${this.id} is running; kill it first`);
    if (exec.exit === undefined) exec.force(UNKNOWN_EXIT);
    this.#execs.delete(execId);
    await exec.release();
    return exec.exit as Exit;
  }

  async pause(call: Call): Promise<void> {
    await this.#turn.run(async () => {
      if (this.state !== "running") throw this.#notRunning("be paused");
      await this.#deps.agent.pause(this.id, call);
      this.#paused = true;
      this.#emit({ kind: "paused" });
    });
  }

  async resume(call: Call): Promise<void> {
    await this.#turn.run(async () => {
      if (this.state !== "paused")
        throw new Fault("failed_precondition", `container ${this.id} cannot be resumed: it is ${this.state}`);
      await this.#deps.agent.resume(this.id, call);
      this.#paused = false;
      this.#emit({ kind: "resumed" });
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
    this.#emit({ kind: "oom" });
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
      for (const exec of this.#execs.values()) await exec.release();
      await this.init.release();
      this.#emit({ kind: "delete", ...exit });
      return exit;
    });
  }

  /** Ends every process here, whatever the guest does. */
  force(status: number): void {
    for (const exec of this.#execs.values()) exec.force(status);
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
    const execs = [...this.#execs.values()].filter((e) => e.state === "running");
    const soon = withDeadline(5_000);
    await Promise.all(execs.map((e) => e.wait(soon).catch(() => undefined)));
    if (life.aborted) return;
    try {
      await agent.removeContainer(this.id, { signal: life });
    } catch (err) {
      if (!life.aborted) log.warn({ err, container: this.id }, "container not removed from the guest");
    }
  }

  #onInitExit(exit: Exit, how: EndOfProcess): void {
    if (how !== "start-failed") this.#emit({ kind: "exit", processId: "", ...exit });
    this.#deps.onEnd(this, exit);
  }

  #emit(event: ContainerEvent): void {
    if (!this.#silent) this.#report(event);
  }

  #notRunning(what: string): Fault {
    return new Fault("failed_precondition", `container ${this.id} cannot ${what}: it is ${this.state}`, {
      container: this.id,
    });
  }

  async #saveTerminationMessage(call: Call): Promise<void> {
    if (this.#messageFile === undefined) return;
    try {
      await writeFile(this.#messageFile, await this.#deps.agent.terminationLog(this.id, call));
    } catch (err) {
      // Agents before 4.x cannot; the exit itself is worth more than the message.
      this.#deps.log.warn({ err, container: this.id, file: this.#messageFile }, "termination message not fetched");
    }
  }
}

/**
 * Kubernetes reads the termination message from a file of the node that the guest has only a copy of.
 * Source: reference §2.10; kubelet's terminationMessagePolicy "File".
 */
function terminationMessageFile({ spec, plan }: PreparedContainer): string | undefined {
  const annotations = spec.annotations ?? {};
  if (annotations["io.kubernetes.container.terminationMessagePolicy"] !== "File") return undefined;
  const path = annotations["io.kubernetes.container.terminationMessagePath"];
  return plan.copies.find((c) => c.destination === path)?.source;
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
