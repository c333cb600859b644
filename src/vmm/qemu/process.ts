import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { readIfThere } from "../../base/files.ts";

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat, clock ticks after boot. */
  readonly startTicks: string;
}

/** Who has this pid now; undefined when nobody, or only a zombie, does. Source: proc(5). */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readProc(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The command in field 2 may contain anything, spaces and parentheses included.
  const [state, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTicks = rest[18];
  if (startTicks === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startTicks };
}

export async function isAlive(process: ProcessIdentity): Promise<boolean> {
  return (await identify(process.pid))?.startTicks === process.startTicks;
}

/**
 * SIGKILL, then waits until the process is gone.
 * @returns false when it still lives after `timeoutMs` (stuck in the kernel)
 */
export async function killAndWait(target: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const until = Date.now() + timeoutMs;
  while (await isAlive(target)) {
    if (Date.now() > until) return false;
    send(target.pid, "SIGKILL");
    await delay(10);
  }
  return true;
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "ESRCH") throw e; // ESRCH: it ended by itself meanwhile
  }
}

/** Processes one of whose arguments is exactly `argument`. Reads the whole of /proc: for recovery only. */
export async function findByArgument(argument: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readProc(`/proc/${name}/cmdline`);
    if (line?.split("\0").includes(argument) !== true) continue;
    const identity = await identify(Number(name));
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

let bootId: Promise<string> | undefined;

/** Changes with every boot of this host: pids and ticks mean nothing across it. */
export function hostBootId(): Promise<string> {
  bootId ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then((text) => text.trim());
  return bootId;
}

async function readProc(path: string): Promise<string | undefined> {
  try {
    return await readIfThere(path);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ESRCH") return undefined; // ended between open and read
    throw e;
  }
}
