import { spawn } from "node:child_process";
import type { Logger } from "../base/log.ts";
import { backoffMs } from "../base/retry.ts";

export interface DaemonKeeperDeps {
  readonly log: Logger;
  /** Without a daemon for this long, guests are given up, ms. */
  readonly orphanAfterMs: number;
  readonly guestCount: () => number;
  /** Nobody will ask for anything here any more: end the process. */
  readonly onOrphaned: (reason: string) => void;
}

const BASE_MS = 200;
const MAX_MS = 15_000;
/** A relay that holds no guest is not worth waiting for, ms. */
const EMPTY_MS = 60_000;
const LOOK_MS = 5_000;

/**
 * Sees to it that a dead daemon is started again, by one process at a time, and that guests whose daemon never comes back
 * are not held for ever.
 */
export class DaemonKeeper {
  readonly #deps: DaemonKeeperDeps;
  readonly #timer: NodeJS.Timeout;
  #argv: readonly string[] = [];
  /** Since when there is no daemon, ms of performance.now(). */
  #alone: number | undefined = performance.now();
  #next: NodeJS.Timeout | undefined;
  #starting = false;
  #attempt = 0;

  constructor(deps: DaemonKeeperDeps) {
    this.#deps = deps;
    this.#timer = setInterval(() => this.#look(), Math.min(LOOK_MS, deps.orphanAfterMs / 4));
    this.#timer.unref();
  }

  /** How a daemon is started; [] = by somebody else (systemd). */
  setRestart(argv: readonly string[]): void {
    this.#argv = argv;
  }

  attached(): void {
    this.#alone = undefined;
    this.#attempt = 0;
    clearTimeout(this.#next);
  }

  detached(): void {
    this.#alone ??= performance.now();
    this.#schedule();
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#next);
  }

  #schedule(): void {
    if (this.#argv.length === 0 || this.#starting || this.#alone === undefined) return;
    clearTimeout(this.#next);
    this.#next = setTimeout(() => this.#start(), backoffMs(this.#attempt++, BASE_MS, MAX_MS));
  }

  #start(): void {
    const [command, ...args] = this.#argv;
    if (command === undefined || this.#alone === undefined) return;
    this.#starting = true;
    this.#deps.log.warn({ attempt: this.#attempt }, "the node daemon is gone, starting it again");
    const over = (err: unknown): void => {
      if (!this.#starting) return;
      this.#starting = false;
      this.#deps.log.debug({ err }, "starting the node daemon again has ended");
      this.#schedule();
    };
    // Its output goes where ours goes; it has a session of its own, as from the launcher.
    const child = spawn(command, args, { detached: true, stdio: ["ignore", "inherit", "inherit"], cwd: "/" });
    child.once("error", over);
    child.once("exit", (code) => over(code));
    child.unref();
  }

  #look(): void {
    if (this.#alone === undefined) return;
    const alone = performance.now() - this.#alone;
    const guests = this.#deps.guestCount();
    if (alone < (guests > 0 ? this.#deps.orphanAfterMs : Math.min(EMPTY_MS, this.#deps.orphanAfterMs))) return;
    this.close();
    this.#deps.onOrphaned(`no node daemon for ${Math.round(alone / 1000)} s`);
  }
}
