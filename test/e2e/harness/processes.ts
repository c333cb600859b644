import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

export interface ProcessInfo {
  readonly pid: number;
  readonly ppid: number;
  readonly state: string;
  readonly command: string;
}

/** Every process that can be read, ours not included. */
export function listProcesses(): ProcessInfo[] {
  const found: ProcessInfo[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      found.push({ pid, ppid: Number(fields[1]), state: fields[0] ?? "?", command });
    } catch {
      // ended while we looked
    }
  }
  return found;
}

/** Processes that belong to a test: their command line, environment or working directory names its folder. */
export function processesOf(folder: string): ProcessInfo[] {
  return listProcesses().filter(({ pid, command, state }) => {
    if (state === "Z" || state === "X") return false;
    if (command.includes(folder)) return true;
    try {
      return (
        readFileSync(`/proc/${pid}/environ`, "latin1").includes(folder) ||
        readlinkSync(`/proc/${pid}/cwd`).startsWith(folder)
      );
    } catch {
      return false; // ended while we looked
    }
  });
}

export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** Sends a signal; a process that is already gone is fine. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "ESRCH") throw e;
  }
}

/**
 * Asks until `probe` gives something other than undefined or false.
 * @throws Error saying what was waited for, with what `describe` adds
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  describe: () => string = () => "",
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what} ${describe()}`.trim());
    await delay(50);
  }
}
