import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate } from "../base/files.ts";

export interface LockOptions {
  readonly runDir: string;
  /** This program's own command line, to be run again under the lock: [execPath, ...arguments]. */
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Exit code of flock(1) when the lock is taken. The launcher knows it. */
const TAKEN = 75;

/**
 * Makes sure that this process holds the run directory's lock, by which the launcher sees that a daemon lives. Node
 * cannot take a flock itself: flock(1) takes it and becomes this program again, which keeps the descriptor. (Node marks
 * inherited descriptors close-on-exec, so children don't hold the lock.)
 * Returns when the lock is held; otherwise the process is replaced and starts anew.
 * @throws Fault already_exists when another daemon holds it
 */
export async function ensureLock(options: LockOptions, call: Call): Promise<void> {
  const path = join(options.runDir, "node.lock");
  if (await isHeldByUs(path)) return;
  await mkdirPrivate(options.runDir);
  // The launcher's test takes a shared lock for a moment: that is waited for, a daemon is not.
  const flags = ["--exclusive", "--wait", "1", "--conflict-exit-code", String(TAKEN), path];
  try {
    await exec("flock", [...flags, "true"], call);
  } catch (cause) {
    if (!(cause instanceof Fault) || cause.context.exitCode !== TAKEN) throw cause;
    throw new Fault(
      "already_exists",
      `another node daemon runs with ${options.runDir}: its lock is held`,
      {},
      { cause },
    );
  }
  const { stdout } = await exec("sh", ["-c", "command -v flock"], call);
  if (process.execve === undefined)
    throw new Fault("failed_precondition", "this Node has no process.execve: start the daemon under flock(1)");
  process.execve(stdout.trim(), ["flock", "--no-fork", ...flags, ...options.argv], options.env);
}

/** Whether a descriptor of this process holds the lock. Source: proc(5), /proc/pid/fdinfo "lock:" lines. */
async function isHeldByUs(path: string): Promise<boolean> {
  for (const fd of await readdir("/proc/self/fd")) {
    try {
      if ((await readlink(`/proc/self/fd/${fd}`)) !== path) continue;
      if (/^lock:.*\bFLOCK\b.*\bWRITE\b/m.test(await readFile(`/proc/self/fdinfo/${fd}`, "utf8"))) return true;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw e; // a descriptor of ours that is closed again
    }
  }
  return false;
}
