import { background, type Call, withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { race } from "../../base/retry.ts";
import type { Relay } from "../../relay/index.ts";
import type { Agent, ProcessRef } from "../agent/index.ts";
import type { Exit, Stdio } from "./container-event.ts";

export const SIGKILL = 9;
const SIGTERM = 15;
/** Exit status when the guest cannot say it. Source: kata and containerd. */
export const UNKNOWN_EXIT = 255;
/** A killed process whose output nobody takes must not stay "running" for ever. */
const DRAIN_AFTER_KILL_MS = 5_000;
/** What had arrived from a guest before it was lost may still be written for so long. */
const DRAIN_AFTER_LOSS_MS = 1_000;

export interface GuestProcessDeps {
  readonly sandboxId: SandboxId;
  readonly agent: Agent;
  readonly relay: Pick<Relay, "attachStdio" | "stdioDrained" | "closeStdin" | "detachStdio">;
  /** Aborted when the guest is lost or taken down. */
  readonly life: AbortSignal;
  readonly log: Logger;
  readonly now: () => Date;
  /** After a started process has ended, before anybody is told: last words that must be fetched first. Never rejects. */
  readonly beforeExit?: (call: Call) => Promise<void>;
  /** Told once, before whoever waits. */
  readonly onExit: (exit: Exit, how: EndOfProcess) => void;
}

/** "ran": its start had been reported; "never-ran": killed or lost before its start; "start-failed": the start's caller knows. */
export type EndOfProcess = "ran" | "never-ran" | "start-failed";

export type ProcessState = "created" | "running" | "stopped";

/** The life of one process in the guest: a container's first one, or one that was added by exec. */
export class GuestProcess {
  /** How the agent knows it. */
  readonly ref: ProcessRef;
  readonly stdio: Stdio;
  readonly #deps: GuestProcessDeps;
  /** "" for the container's first process: then a signal goes to the container. */
  readonly #signalId: string;
  readonly #key: string;
  readonly #exited = deferred<Exit>();
  readonly #stopDraining = deferred<void>();
  #exit: Exit | undefined;
  #starting: Promise<void> | undefined;
  #running = false;
  #attached = false;
  #size: { readonly row: number; readonly column: number } | undefined;

  constructor(ref: ProcessRef, stdio: Stdio, deps: GuestProcessDeps) {
    this.ref = ref;
    this.stdio = stdio;
    this.#deps = deps;
    this.#signalId = ref.execId === ref.containerId ? "" : ref.execId;
    this.#key = `${deps.sandboxId}/${ref.containerId}/${ref.execId}`;
  }

  get state(): ProcessState {
    if (this.#exit !== undefined) return "stopped";
    return this.#running ? "running" : "created";
  }

  get exit(): Exit | undefined {
    return this.#exit;
  }

  /** Every caller gets the same answer, also long after the exit. */
  async wait(call: Call): Promise<Exit> {
    return this.#exit ?? (await race(this.#exited.promise, call));
  }

  /**
   * Starts it by `begin`, attaches its streams, reports the start by `onStarted` and watches it from then on.
   * A process that could not be started counts as stopped with 255.
   */
  async start(begin: (call: Call) => Promise<void>, onStarted: () => void, call: Call): Promise<void> {
    if (this.#starting !== undefined || this.#exit !== undefined) {
      throw new Fault(
        "failed_precondition",
        `${this.#name} cannot be started: it is ${this.#exit === undefined ? "started already" : "stopped"}`,
      );
    }
    this.#starting = this.#start(begin, onStarted, call);
    await this.#starting;
  }

  /** An ended process is success, as is one that the guest does not know any more. */
  async kill(signal: number, call: Call): Promise<void> {
    // A start that is on its way decides first whether there is anything to signal; its error is its caller's.
    await race(this.#starting?.catch(() => undefined) ?? Promise.resolve(), call);
    if (this.#exit !== undefined) return;
    if (!this.#running) {
      if (signal !== SIGKILL && signal !== SIGTERM) {
        throw new Fault("failed_precondition", `${this.#name} cannot get signal ${signal}: it is not started`);
      }
      this.#settle(128 + signal, "never-ran");
      return;
    }
    try {
      await this.#deps.agent.signalProcess({ containerId: this.ref.containerId, execId: this.#signalId }, signal, call);
    } catch (error) {
      if (this.state !== "stopped") throw error;
    }
    if (signal === SIGKILL) setTimeout(() => this.#stopDraining.resolve(), DRAIN_AFTER_KILL_MS).unref();
  }

  /** Remembered until the start, when it is not running yet. */
  async resize(row: number, column: number, call: Call): Promise<void> {
    if (!this.stdio.terminal)
      throw new Fault("failed_precondition", `${this.#name} has no terminal that could be resized`);
    this.#size = { row, column };
    if (this.#running && this.#exit === undefined) await this.#deps.agent.resize(this.ref, row, column, call);
  }

  /** Delivers what is left in stdin, then closes it. */
  async closeStdin(call: Call): Promise<void> {
    if (this.#attached) await this.#deps.relay.closeStdin(this.#key, call);
  }

  /** Ends its life here, whatever the guest does: it is lost, or has not obeyed. */
  force(status: number): void {
    this.#settle(status, this.#running ? "ran" : "never-ran");
  }

  /** Closes the streams. Repeatable. */
  async release(): Promise<void> {
    if (this.#attached) await this.#deps.relay.detachStdio(this.#key);
  }

  get #name(): string {
    return this.#signalId === ""
      ? `container ${this.ref.containerId}`
      : `process ${this.#signalId} of container ${this.ref.containerId}`;
  }

  async #start(begin: (call: Call) => Promise<void>, onStarted: () => void, call: Call): Promise<void> {
    const { agent, relay, sandboxId } = this.#deps;
    let begun = false;
    try {
      await begin(call);
      begun = true;
      const { containerId, execId } = this.ref;
      await relay.attachStdio({ key: this.#key, sandboxId, containerId, execId, ...this.stdio }, call);
      this.#attached = true;
      if (this.#size !== undefined) await agent.resize(this.ref, this.#size.row, this.#size.column, call);
    } catch (error) {
      // After a failed or aborted begin the process may run all the same: nobody would watch it.
      const undo = begun || call.signal.aborted;
      if (undo) {
        const ref = { containerId: this.ref.containerId, execId: this.#signalId };
        await agent
          .signalProcess(ref, SIGKILL, withDeadline(5_000, background()))
          .catch((err: unknown) => this.#deps.log.warn({ err }, "half-started process not killed"));
      }
      this.#settle(UNKNOWN_EXIT, "start-failed");
      throw error;
    }
    if (this.#exit !== undefined)
      throw new Fault("unavailable", `${this.#name} ended while it was started: the pod VM is lost`);
    this.#running = true;
    onStarted();
    void this.#watch();
  }

  /** Output first: the stock agent forgets a process, its output with it, once its exit code has been fetched. */
  async #watch(): Promise<void> {
    const { agent, relay, life, log } = this.#deps;
    const drained = relay.stdioDrained(this.#key);
    let status = UNKNOWN_EXIT;
    try {
      await race(Promise.race([drained, this.#stopDraining.promise]), { signal: life });
      status = await race(agent.waitProcess(this.ref, { signal: life }), { signal: life });
      await this.#deps.beforeExit?.(withDeadline(5_000, { signal: life }));
    } catch (err) {
      log.warn({ err, container: this.ref.containerId, exec: this.#signalId }, "exit code unknown, 255 is reported");
      await race(drained, withDeadline(DRAIN_AFTER_LOSS_MS)).catch(() => undefined); // late output is a courtesy
    }
    this.#settle(status, "ran");
    await this.release();
  }

  #settle(status: number, how: EndOfProcess): void {
    if (this.#exit !== undefined) return;
    this.#exit = { status, at: this.#deps.now() };
    this.#deps.onExit(this.#exit, how);
    this.#exited.resolve(this.#exit);
  }
}
