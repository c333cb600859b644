import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { currentState } from "./failure-report.ts";

/** Longer than any deadline of the product that a pod's start may run into: it shall give its own reason first. */
const TIMEOUT_MS = 240_000;

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Uint8Array | Readable;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs?: number;
}

/** How a program is started in a network namespace: it takes the place of nsenter, whose process it is. */
export function inNetwork(
  netns: string | undefined,
  command: string,
  args: readonly string[],
): { readonly command: string; readonly args: string[] } {
  if (netns === undefined) return { command, args: [...args] };
  return { command: "nsenter", args: [`--net=${netns}`, "--", command, ...args] };
}

/** A program that runs; `done` resolves with its end whatever the exit code is (128+n after a signal). */
export interface Running {
  readonly child: ChildProcess;
  readonly done: Promise<Outcome>;
  /** What it wrote up to now. */
  output(): string;
}

export function start(command: string, args: readonly string[], options: RunOptions = {}): Running {
  const child = spawn(command, args, {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    env: options.env ?? process.env,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (d: string) => {
    stdout += d;
  });
  child.stderr?.setEncoding("utf8").on("data", (d: string) => {
    stderr += d;
  });
  if (child.stdin !== null) {
    child.stdin.on("error", () => undefined); // the program may end before it has read all: its exit code tells
    if (options.input instanceof Object && "pipe" in options.input) options.input.pipe(child.stdin);
    else child.stdin.end(options.input);
  }
  const line = `${command} ${args.join(" ")}`;
  const done = new Promise<Outcome>((resolve, reject) => {
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    const timer = setTimeout(async () => {
      const state = await currentState(); // before the kill: whoever served it would clean up after that
      child.kill("SIGKILL");
      reject(new Error(`${line} still ran after ${timeoutMs} ms; it said: ${stdout}${stderr}\n${state}`));
    }, timeoutMs);
    child.on("error", (e) => {
      clearTimeout(timer);
      reject(e);
    });
    child.on("close", (code, name) => {
      clearTimeout(timer);
      resolve({ code: code ?? 128 + (name === "SIGKILL" ? 9 : 15), stdout, stderr });
    });
  });
  done.catch(() => undefined); // whoever waits for it sees the error; nobody may be waiting yet
  return { child, done, output: () => stdout + stderr };
}

export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return start(command, args, options).done;
}

/** Runs a program that must succeed, and gives its standard output. */
export async function must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}: ${stderr}${stdout}`);
  return stdout;
}

/** Pipes `input` in and hashes what comes out, without holding either in memory. */
export async function hashThrough(
  command: string,
  args: readonly string[],
  options: { readonly env: NodeJS.ProcessEnv; readonly input: Readable; readonly timeoutMs: number },
): Promise<{ readonly code: number; readonly bytes: number; readonly sha256: string; readonly stderr: string }> {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: options.env });
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs);
  const hash = createHash("sha256");
  let bytes = 0;
  let stderr = "";
  child.stdin.on("error", () => undefined); // see start()
  options.input.pipe(child.stdin);
  child.stdout.on("data", (d: Buffer) => {
    hash.update(d);
    bytes += d.length;
  });
  child.stderr.setEncoding("utf8").on("data", (d: string) => {
    stderr += d;
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (c) => resolve(c ?? 137));
  });
  clearTimeout(timer);
  return { code, bytes, sha256: hash.digest("hex"), stderr };
}
