import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, type WriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { isAlive, until } from "../e2e/harness/processes.ts";

export interface DaemonOptions {
  readonly name: string;
  /** The program with its arguments; what it starts as stays its process. */
  readonly command: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly logPath: string;
  /** Message of the log line that says that it serves. */
  readonly readyMessage: string;
  readonly onMessage: (message: string) => void;
  readonly onEnd: (how: string) => void;
}

const START_MS = 30_000;
const STARTS = 3;

/** A daemon of ours that can be killed at any moment and started again. Its log lines are read as they come. */
export class DaemonProcess {
  readonly #options: DaemonOptions;
  readonly #log: WriteStream;
  /** The program with its arguments that the next start runs. */
  command: readonly string[];
  #child: ChildProcess | undefined;
  #killed: ChildProcess | undefined;
  #last = "";

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.command = options.command;
    this.#log = createWriteStream(options.logPath, { flags: "a" });
  }

  get pid(): number | undefined {
    const { pid } = this.#child ?? {};
    return pid !== undefined && isAlive(pid) ? pid : undefined;
  }

  get name(): string {
    return this.#options.name;
  }

  get logPath(): string {
    return this.#options.logPath;
  }

  /**
   * Resolves when it serves, as a service manager starts it: one that ends by itself is started again. The end of one that
   * was killed is waited for first. Nothing is done when it runs.
   * @throws Error with its newest line when it does not serve at last
   */
  async start(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#startOnce();
      } catch (e) {
        if (tries === STARTS || this.pid !== undefined) throw e;
      }
    }
  }

  async #startOnce(): Promise<void> {
    const before = this.#child;
    if (before !== undefined && this.#killed === before)
      await until(`the killed ${this.#options.name} to be gone`, START_MS, () => this.pid === undefined);
    // Someone else may have started it meanwhile.
    if (this.pid !== undefined || this.#child !== before) return;
    const { env, name, readyMessage, onMessage, onEnd } = this.#options;
    const [program = "", ...args] = this.command;
    const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let ready = false;
    const onLine = (line: string): void => {
      this.#log.write(`${line}\n`);
      this.#last = line;
      const message = messageIn(line);
      if (message === undefined) return;
      if (message === readyMessage) ready = true;
      onMessage(message);
    };
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on("line", onLine);
    child.on("exit", (code, signal) => onEnd(`${name} ended: ${signal ?? `exit code ${code}`}`));
    await until(
      `${name} to serve`,
      START_MS,
      () => {
        // Killed again while it starts: whoever did that starts it again.
        if (child.signalCode === "SIGKILL" || this.#child !== child) return true;
        if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}: ${this.#last}`);
        return ready;
      },
      () => this.#last,
    );
  }

  /** At once: no more instruction of it is carried out after this returns. */
  kill(): void {
    this.#killed = this.#child;
    this.#child?.kill("SIGKILL");
  }

  freeze(): void {
    this.#child?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child?.kill("SIGCONT");
  }

  /** As a service manager ends it. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    child.kill("SIGCONT");
    child.kill("SIGTERM");
    const { pid = 0 } = child;
    await until(`${this.#options.name} to end after SIGTERM`, START_MS, () => !isAlive(pid));
  }
}

function messageIn(line: string): string | undefined {
  try {
    const { msg } = JSON.parse(line) as { msg?: unknown };
    return typeof msg === "string" ? msg : undefined;
  } catch {
    return undefined; // not a log line of ours: a stack trace, a warning of Node
  }
}
