import { background, type Call, withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { race } from "../../base/retry.ts";
import type { Relay } from "../../relay/index.ts";
import type { Agent, ProcessRef } from "../agent/index.ts";
import type { Exit, Stdio } from "./container-event.ts";
import type { ProcessRecord } from "./container-record.ts";

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
  /** containerd's. */
  readonly namespace: string;
  readonly agent: Agent;
  readonly relay: Pick<
    Relay,
    "attachStdio" | "stdioDrained" | "processExit" | "giveUpOutput" | "closeStdin" | "detachStdio"
  >;
  /** Aborted when the guest is lost or taken down. */
  readonly life: AbortSignal;
  readonly log: Logger;
  readonly now: () => Date;
  /** After a started process has ended, before anybody is told: last words that must be fetched first. Never rejects. */
  readonly beforeExit?: (call: Call) => Promise<void>;
  /** Told once, before whoever waits; resolves when that cannot be lost any more. */
  readonly onExit: (exit: Exit, how: EndOfProcess) => Promise<void>;
  /** Writes down what `record` says, for the next daemon. */
  readonly save: () => Promise<void>;
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
  #exit: Exit | undefined;
  #starting: Promise<void> | undefined;
  #startKey: string | undefined;
  #running = false;
  #attached = false;
  /** What has to be safe before the relay may forget the exit. */
  #told: Promise<void> = Promise.resolve();
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

  get record(): ProcessRecord {
    const exit = this.#exit;
    const phase = this.state === "created" && this.#starting !== undefined ? "starting" : this.state;
    return {
      phase,
      ...(this.#startKey === undefined ? {} : { startKey: this.#startKey }),
      ...(exit === undefined ? {} : { exit: { status: exit.status, atMs: exit.at.getTime() } }),
    };
  }

  /**
   * Goes on with a process of an earlier daemon. One that was being started is started again when its Start comes again
   * (`expected`: the same answers come under the same keys), else it is ended: nobody knows how far it got.
   */
  restore(record: ProcessRecord, expected: ReadonlySet<string>): void {
    this.#startKey = record.startKey;
    if (record.phase === "stopped") {
      const { status = UNKNOWN_EXIT, atMs = 0 } = record.exit ?? {};
      this.#exit = { status, at: new Date(atMs) };
      this.#exited.resolve(this.#exit);
      // Written down, perhaps not acknowledged yet.
      this.#attached = record.exit !== undefined;
      void this.release();
    } else if (record.phase === "running") {
      this.#running = true;
      this.#attached = true;
      void this.#watch();
    } else if (record.phase === "starting" && !(record.startKey !== undefined && expected.has(record.startKey))) {
      this.#attached = true;
      void this.#killHalfStarted().then(() => {
        this.#settle(UNKNOWN_EXIT, "start-failed");
        return this.release();
      });
    }
  }

  /**
   * Starts it by `begin`, attaches its streams, reports the start by `onStarted` and watches it from then on.
   * A process that could not be started counts as stopped with 255. The same request again is success.
   */
  async start(begin: (call: Call) => Promise<void>, onStarted: () => Promise<void>, call: Call): Promise<void> {
    if (call.requestKey !== undefined && call.requestKey === this.#startKey) {
      if (this.#starting !== undefined) return this.#starting;
      if (this.#running) return;
    }
    if (this.#starting !== undefined || this.#exit !== undefined) {
      throw new Fault(
        "failed_precondition",
        `${this.#name} cannot be started: it is ${this.#exit === undefined ? "started already" : "stopped"}`,
      );
    }
    this.#startKey = call.requestKey;
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
    if (signal === SIGKILL) setTimeout(() => void this.#giveUpOutput(), DRAIN_AFTER_KILL_MS).unref();
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
    // The relay forgets the exit with them.
    await this.#told;
    if (this.#attached) await this.#deps.relay.detachStdio(this.#key);
  }

  get #name(): string {
    return this.#signalId === ""
      ? `container ${this.ref.containerId}`
      : `process ${this.#signalId} of container ${this.ref.containerId}`;
  }

  async #start(begin: (call: Call) => Promise<void>, onStarted: () => Promise<void>, call: Call): Promise<void> {
    const { agent, relay, sandboxId, namespace, save } = this.#deps;
    let begun = false;
    try {
      await Promise.resolve(); // the record says "starting" only once start() has returned
      await save();
      await begin(call);
      begun = true;
      const { containerId, execId } = this.ref;
      await relay.attachStdio({ key: this.#key, sandboxId, namespace, containerId, execId, ...this.stdio }, call);
      this.#attached = true;
      if (this.#size !== undefined) await agent.resize(this.ref, this.#size.row, this.#size.column, call);
    } catch (error) {
      // After a failed or aborted begin the process may run all the same: nobody would watch it.
      if (begun || call.signal.aborted) await this.#killHalfStarted();
      this.#settle(UNKNOWN_EXIT, "start-failed");
      throw error;
    }
    if (this.#exit !== undefined)
      throw new Fault("unavailable", `${this.#name} ended while it was started: the pod VM is lost`);
    this.#running = true;
    const reported = onStarted();
    void this.#watch();
    // In this order: a daemon that finds it running need not report it.
    await reported;
    await save();
  }

  async #killHalfStarted(): Promise<void> {
    const ref = { containerId: this.ref.containerId, execId: this.#signalId };
    await this.#deps.agent
      .signalProcess(ref, SIGKILL, withDeadline(5_000, background()))
      .catch((err: unknown) => this.#deps.log.warn({ err }, "half-started process not killed"));
  }

  async #giveUpOutput(): Promise<void> {
    if (this.#exit !== undefined) return;
    await this.#deps.relay
      .giveUpOutput(this.#key)
      .catch((err: unknown) => this.#deps.log.warn({ err, exec: this.#signalId }, "output not given up"));
  }

  async #watch(): Promise<void> {
    const { relay, life, log } = this.#deps;
    let status = UNKNOWN_EXIT;
    let at: Date | undefined;
    try {
      const exit = await race(relay.processExit(this.#key, { signal: life }), { signal: life });
      status = exit.status;
      at = exit.at;
      await this.#deps.beforeExit?.(withDeadline(5_000, { signal: life }));
    } catch (err) {
      log.warn({ err, container: this.ref.containerId, exec: this.#signalId }, "exit code unknown, 255 is reported");
      // late output is a courtesy
      await race(relay.stdioDrained(this.#key), withDeadline(DRAIN_AFTER_LOSS_MS)).catch(() => undefined);
    }
    this.#settle(status, "ran", at);
    await this.release();
  }

  #settle(status: number, how: EndOfProcess, at?: Date): void {
    if (this.#exit !== undefined) return;
    this.#exit = { status, at: at ?? this.#deps.now() };
    const reported = this.#deps.onExit(this.#exit, how);
    this.#told = reported.then(() => this.#deps.save());
    this.#exited.resolve(this.#exit);
  }
}
