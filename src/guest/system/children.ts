import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { type Deferred, deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { libc } from "./libc.ts";
import { withOomScore } from "./oom-score.ts";

const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 0x1;
const WEXITED = 0x4;
const WNOWAIT = 0x1000000;
const CLD_EXITED = 1;
const PR_SET_CHILD_SUBREAPER = 36;
/** An orphan that nobody asked for by then is forgotten. */
const KEPT_EXITS = 512;

export interface ProgramResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

type Output = "text" | "ignore" | number;

export interface ProgramOptions {
  /** Standard streams; "text" collects, a number is a descriptor that the child gets. Default: ignore, text, text. */
  readonly stdio?: readonly [stdin: "ignore" | number, stdout: Output, stderr: Output];
  readonly signal?: AbortSignal;
  readonly env?: NodeJS.ProcessEnv;
  /** oom_score_adj of the program and what it starts. Default 0. */
  readonly oomScore?: number;
}

/**
 * The processes below this one. Container processes become its children when the OCI runtime that started them ends
 * (this process is PID 1 of the guest, or a subreaper in tests); it takes their exit status with waitid, one by one, and
 * never that of a program which Node itself spawned, because libuv waits for those.
 */
export class Children {
  readonly #own = new Set<number>();
  readonly #waiting = new Map<number, Deferred<number>>();
  readonly #exits = new Map<number, number>();
  readonly #onSigchld = (): void => this.#reap();

  /** Starts reaping. Every program must be started through `run` or `spawn` from now on. */
  start(): void {
    if (process.pid !== 1) libc("int prctl(int option, unsigned long argument)", PR_SET_CHILD_SUBREAPER, 1);
    process.on("SIGCHLD", this.#onSigchld);
  }

  stop(): void {
    process.off("SIGCHLD", this.#onSigchld);
  }

  /**
   * Exit status of a process that the OCI runtime started: its exit code, or 128 + the signal that killed it.
   * The process may be gone already.
   */
  exitOf(pid: number): Promise<number> {
    const seen = this.#exits.get(pid);
    if (seen !== undefined) {
      this.#exits.delete(pid);
      return Promise.resolve(seen);
    }
    const waiting = this.#waiting.get(pid) ?? deferred<number>();
    this.#waiting.set(pid, waiting);
    return waiting.promise;
  }

  /** Starts a program whose exit Node itself waits for. The guest's own protection from the OOM killer is not inherited. */
  spawn(command: string, args: readonly string[], stdio: StdioOptions, options: ProgramOptions = {}): ChildProcess {
    const child = withOomScore(options.oomScore ?? 0, () =>
      spawn(command, args, { stdio, env: options.env, signal: options.signal, killSignal: "SIGKILL" }),
    );
    const pid = child.pid;
    if (pid !== undefined) {
      this.#own.add(pid);
      child.once("exit", () => {
        this.#own.delete(pid);
        this.#reap();
      });
    }
    return child;
  }

  /**
   * Runs a program to its end and collects what it says.
   * @throws Fault unavailable when it cannot be started, cancelled when the signal ended it. An exit code is not an error.
   */
  run(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<ProgramResult> {
    const [stdin, stdout, stderr] = options.stdio ?? ["ignore", "text", "text"];
    const pipe = (s: Output): "pipe" | "ignore" | number => (s === "text" ? "pipe" : s);
    const { promise, resolve, reject } = Promise.withResolvers<ProgramResult>();
    const child = this.spawn(command, args, [stdin, pipe(stdout), pipe(stderr)], options);
    const said = { stdout: "", stderr: "" };
    child.stdout?.setEncoding("utf8").on("data", (d: string) => {
      said.stdout += d;
    });
    child.stderr?.setEncoding("utf8").on("data", (d: string) => {
      said.stderr += d;
    });
    child.on("error", (cause: NodeJS.ErrnoException) => {
      if (cause.name === "AbortError")
        reject(new Fault("deadline_exceeded", `${command} was stopped: it did not end`, { command }, { cause }));
      else
        reject(
          new Fault(
            "unavailable",
            `${command} cannot be started in the guest`,
            { command },
            { cause, retryable: false },
          ),
        );
    });
    child.on("close", (code, signal) => {
      const exitCode = code ?? 128 + (signal === null ? 0 : 9);
      resolve({ exitCode, ...said });
    });
    return promise;
  }

  #reap(): void {
    for (;;) {
      const next = waitid(P_ALL, 0, WNOWAIT);
      if (next === undefined) return;
      if (this.#own.has(next.pid)) {
        this.#reapWaiting(); // it is libuv's; when it is gone, its "exit" brings us back
        return;
      }
      if (waitid(P_PID, next.pid, 0) !== undefined) this.#exited(next.pid, next.status);
    }
  }

  /** The kernel shows one child at a time; behind one of libuv's ours are asked for by name. */
  #reapWaiting(): void {
    for (const pid of [...this.#waiting.keys()]) {
      const exit = waitid(P_PID, pid, 0);
      if (exit !== undefined) this.#exited(pid, exit.status);
    }
  }

  #exited(pid: number, status: number): void {
    const waiting = this.#waiting.get(pid);
    if (waiting !== undefined) {
      this.#waiting.delete(pid);
      waiting.resolve(status);
      return;
    }
    this.#exits.set(pid, status);
    if (this.#exits.size > KEPT_EXITS) {
      for (const oldest of this.#exits.keys()) {
        this.#exits.delete(oldest);
        break;
      }
    }
  }
}

function waitid(
  kind: number,
  id: number,
  flags: number,
): { readonly pid: number; readonly status: number } | undefined {
  const info = new Int32Array(32); // siginfo_t, 128 bytes: [2] code, [4] pid, [6] status
  try {
    libc("int waitid(int kind, int id, void *info, int flags)", kind, id, info, WEXITED | WNOHANG | flags);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ECHILD") return undefined; // no such child (left)
    throw e;
  }
  const [, , code = 0, , pid = 0, , status = 0] = info;
  if (pid === 0) return undefined;
  return { pid, status: code === CLD_EXITED ? status : 128 + status };
}
