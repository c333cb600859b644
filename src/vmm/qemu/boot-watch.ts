import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { sleep } from "../../base/retry.ts";
import { readConsole } from "./console.ts";
import { filesIn } from "./layout.ts";
import { isAlive, type ProcessIdentity } from "./process.ts";
import { Qmp } from "./qmp.ts";
import { cpuWaits, starvedMs } from "./starved.ts";

export interface BootWatch {
  readonly dir: string;
  readonly process: ProcessIdentity;
  /** What the guest writes on its console once it is up. */
  readonly lifeSign: string;
  /** Patience, ms, without the time in which the host had no CPU for the VM. */
  readonly noLifeMs: number;
  readonly log: Logger;
}

const POLL_MS = 500;
/** QEMU answers in milliseconds, however its guest is; a busy host takes longer, ms. */
const QMP_MS = 20_000;
const CONSOLE_BYTES = 64 * 1024;

/**
 * Waits for a guest's sign of life on its console. One that gives none is started anew, once, in the same QEMU: it has
 * answered nobody yet, so nothing is lost, and its address stays. An emulated machine may hang where a real one does
 * not, rarely, and nobody would hear of it before the deadline of whoever dials it.
 * @returns why the VM is given up; undefined when it lives, or has ended by itself
 */
export async function watchBoot(watch: BootWatch, call: Call): Promise<string | undefined> {
  if (await hasEnding(watch, call)) return undefined;
  try {
    if (!(await startAnew(watch, call))) return undefined;
  } catch (e) {
    if (call.signal.aborted || !(await isAlive(watch.process))) return undefined;
    return `${silence(watch)}, and it cannot be started anew: ${Fault.from(e).fullMessage}`;
  }
  if (await hasEnding(watch, call)) {
    await endAtReset(watch, call);
    return undefined;
  }
  return `${silence(watch)}, and none after it was started anew`;
}

/** Whether the wait is over because the guest lives or the VM has ended; false when patience is. */
async function hasEnding(watch: BootWatch, call: Call): Promise<boolean> {
  const begun = performance.now();
  const before = await cpuWaits(watch.process.pid);
  for (;;) {
    if ((await lives(watch)) || !(await isAlive(watch.process))) return true;
    const passed = performance.now() - begun;
    if (passed >= watch.noLifeMs) {
      const served = passed - starvedMs(before, await cpuWaits(watch.process.pid));
      if (served >= watch.noLifeMs) return false;
    }
    await sleep(POLL_MS, call);
  }
}

/** @returns false when the guest came to life just before it was stopped */
async function startAnew(watch: BootWatch, call: Call): Promise<boolean> {
  const bounded = withDeadline(QMP_MS, call);
  await using qmp = await Qmp.open(filesIn(watch.dir).qmpSocket, bounded);
  const state = await describe(qmp, bounded);
  // While it stands still it cannot come to life between our look and the reset.
  await qmp.execute("stop", {}, bounded);
  if (await lives(watch)) {
    await qmp.execute("cont", {}, bounded);
    return false;
  }
  watch.log.warn({ dir: watch.dir, pid: watch.process.pid, state }, `${silence(watch)}: it is started anew`);
  // -no-reboot makes every reset the end of QEMU. The firmware (SeaBIOS) makes one more by itself.
  await qmp.execute("set-action", { reboot: "reset" }, bounded);
  await qmp.execute("system_reset", {}, bounded);
  while ((await status(qmp, bounded)) === "paused") await sleep(20, bounded); // until the reset is over: "prelaunch"
  await qmp.execute("cont", {}, bounded);
  return true;
}

/** A reset that the guest makes shall be its end again. */
async function endAtReset(watch: BootWatch, call: Call): Promise<void> {
  if (!(await isAlive(watch.process))) return;
  const bounded = withDeadline(QMP_MS, call);
  await using qmp = await Qmp.open(filesIn(watch.dir).qmpSocket, bounded);
  await qmp.execute("set-action", { reboot: "shutdown" }, bounded);
}

/** Where the guest's processors are: all that there is to find a hang's cause by. */
async function describe(qmp: Qmp, call: Call): Promise<string> {
  const seen: string[] = [await status(qmp, call)];
  for (let look = 0; look < 3; look++) {
    const text = await qmp.execute("human-monitor-command", { "command-line": "info registers -a" }, call);
    seen.push([...String(text).matchAll(/RIP=\S+|EIP=\S+|HLT=\d|RFL=\S+|EFL=\S+/g)].join(" "));
    await sleep(100, call);
  }
  return seen.join("; ");
}

async function status(qmp: Qmp, call: Call): Promise<string> {
  return ((await qmp.execute("query-status", {}, call)) as { readonly status: string }).status;
}

async function lives({ dir, lifeSign }: BootWatch): Promise<boolean> {
  return (await readConsole(dir, CONSOLE_BYTES))?.includes(lifeSign) === true;
}

function silence({ noLifeMs }: BootWatch): string {
  return `the guest showed no life on its console for ${noLifeMs / 1000} s`;
}
