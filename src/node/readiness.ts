import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../base/files.ts";
import type { Logger } from "../base/log.ts";

/** In the run directory while the daemon serves: "<pid> <start time>", which no other process ever shares. */
export const READY_FILE = "node.ready";

/** A start that the launcher announced this recently may be about to use the daemon, ms. */
const RECENT_START_MS = 30_000;

export interface ReadinessDeps {
  readonly runDir: string;
  readonly log: Logger;
  /** Pods that exist or are being taken down. */
  readonly podCount: () => number;
  /** Without a pod for this long the daemon may end, ms; undefined: never. */
  readonly idleExitMs: number | undefined;
  /** Called once, after `node.ready` is gone for good: end the process now. */
  readonly onIdle: () => void;
  readonly now: () => number;
}

/**
 * Tells the launcher that the daemon serves, and decides when it may end.
 *
 * Launcher and daemon use no lock for that; each writes first and looks afterwards (as in Dekker's algorithm), so at
 * least one sees the other: the launcher touches `last-start`, then looks for `node.ready`; the daemon removes
 * `node.ready`, then looks at `last-start`. A launcher that finds no `node.ready` waits for the daemon's lock.
 */
export class Readiness {
  readonly #deps: ReadinessDeps;
  #timer: NodeJS.Timeout | undefined;
  #idleSince: number;

  constructor(deps: ReadinessDeps) {
    this.#deps = deps;
    this.#idleSince = deps.now();
  }

  /** Call when everything is served. */
  async announce(): Promise<void> {
    await this.#write();
    const { idleExitMs } = this.#deps;
    if (idleExitMs === undefined) return;
    this.#timer = setInterval(() => void this.check(), Math.min(10_000, idleExitMs / 4));
    this.#timer.unref();
  }

  /** Takes the announcement back; repeatable. */
  async withdraw(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await rm(this.#ready, { force: true });
  }

  /** Looks whether the daemon has been idle for long enough, and ends it then. */
  async check(): Promise<void> {
    const { podCount, now, idleExitMs, log } = this.#deps;
    if (podCount() > 0) this.#idleSince = now();
    if (idleExitMs === undefined || now() - this.#idleSince < idleExitMs || this.#timer === undefined) return;
    try {
      await rm(this.#ready, { force: true });
      if (podCount() === 0 && now() - (await this.#lastStart()) > RECENT_START_MS) {
        clearInterval(this.#timer);
        this.#timer = undefined;
        log.info({ idleMs: now() - this.#idleSince }, "no pod for a while, the node daemon ends");
        this.#deps.onIdle();
        return;
      }
      this.#idleSince = now();
      if (this.#timer !== undefined) await this.#write();
    } catch (err) {
      log.error({ err }, "cannot change node.ready: the node daemon stays");
    }
  }

  async #write(): Promise<void> {
    await writeFileAtomic(this.#ready, `${process.pid} ${await ownStartTime()}\n`);
  }

  get #ready(): string {
    return join(this.#deps.runDir, READY_FILE);
  }

  /** ms since the epoch; 0 = no launcher was here. */
  async #lastStart(): Promise<number> {
    try {
      return (await stat(join(this.#deps.runDir, "last-start"))).mtimeMs;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === "ENOENT") return 0;
      throw e;
    }
  }
}

/** Field 22 of /proc/self/stat, clock ticks after boot. Field 2, the command, may hold spaces and parentheses: proc(5). */
async function ownStartTime(): Promise<string> {
  const text = await readFile("/proc/self/stat", "utf8");
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}
