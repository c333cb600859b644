import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { ownCpuSeconds } from "./measure.ts";

const CPU_QUESTION = "cpu";
const END_MS = 5_000;

export interface PeerOptions {
  readonly script: string;
  readonly args: readonly string[];
  /** A program with its arguments that runs Node in another place, as `ip netns exec NAME`. */
  readonly through?: readonly string[];
}

/** The other end of a measurement, in a process of its own. It ends when the measuring process does. */
export class PeerProcess<Ready> implements AsyncDisposable {
  /** What the peer said when it was ready. */
  readonly ready: Ready;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, ready: Ready) {
    this.#child = child;
    this.ready = ready;
  }

  /** @throws Error when it ends before it is ready */
  static async start<Ready>(options: PeerOptions): Promise<PeerProcess<Ready>> {
    const [program = process.execPath, ...before] = options.through ?? [];
    const own = options.through === undefined ? [] : [process.execPath];
    const child = spawn(program, [...before, ...own, ...process.execArgv, options.script, ...options.args], {
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      detached: true, // a Ctrl-C must not reach it before the measurement has been ended
    });
    return new PeerProcess(child, (await answer(child)) as Ready);
  }

  /** CPU seconds that the peer has used up to now. */
  async cpuSeconds(): Promise<number> {
    const answered = answer(this.#child);
    this.#child.send(CPU_QUESTION);
    return (await answered) as number;
  }

  /** Sends a signal that the peer answers when it has done what that means. */
  async tell(name: NodeJS.Signals): Promise<unknown> {
    const answered = answer(this.#child);
    this.#child.kill(name);
    return await answered;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill();
    await Promise.race([ended, delay(END_MS, undefined, { ref: false })]);
    child.kill("SIGKILL");
    await ended;
  }
}

/** On the peer's side: says that it is ready, answers questions from then on, ends with the measuring process. */
export function serveMeasuringProcess(ready: unknown): void {
  process.on("disconnect", () => process.exit(0));
  process.on("message", (question) => {
    if (question === CPU_QUESTION) process.send?.(ownCpuSeconds());
  });
  process.send?.(ready);
}

function answer(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      child.off("message", onMessage).off("exit", onExit).off("error", onError);
    };
    const onMessage = (message: unknown): void => {
      done();
      resolve(message);
    };
    const onError = (e: Error): void => {
      done();
      reject(e);
    };
    const onExit = (code: number | null): void => onError(new Error(`the measured process ended early (${code})`));
    child.on("message", onMessage).on("exit", onExit).on("error", onError);
  });
}
