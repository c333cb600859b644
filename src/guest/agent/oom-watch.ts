import { type FSWatcher, watch } from "node:fs";
import type { Call } from "../../base/call.ts";
import { race } from "../../base/retry.ts";
import type { Cgroup } from "./cgroup.ts";

interface Watched {
  readonly cgroup: Cgroup;
  readonly watcher: FSWatcher;
  kills: number;
}

/** Tells of containers that the OOM killer has hit: one event for each change of a container's count. */
export class OomWatch {
  readonly #watched = new Map<string, Watched>();
  /** Events that nobody waited for. */
  readonly #missed: string[] = [];
  readonly #waiting = new Set<(containerId: string) => void>();

  start(containerId: string, cgroup: Cgroup): void {
    const watcher = watch(cgroup.eventsFile, { persistent: false }, () => this.check(containerId));
    watcher.on("error", () => watcher.close()); // the group is gone; check() ran when its init exited
    this.#watched.set(containerId, { cgroup, watcher, kills: cgroup.oomKills() });
  }

  /** Looks now: the notification may come after the exit of the process that was killed. */
  check(containerId: string): void {
    const watched = this.#watched.get(containerId);
    if (watched === undefined) return;
    const kills = watched.cgroup.oomKills();
    if (kills <= watched.kills) return;
    watched.kills = kills;
    if (this.#waiting.size === 0) this.#missed.push(containerId);
    for (const tell of this.#waiting) tell(containerId);
    this.#waiting.clear();
  }

  stop(containerId: string): void {
    this.#watched.get(containerId)?.watcher.close();
    this.#watched.delete(containerId);
  }

  /**
   * The next container that is hit. Everybody who waits is told: one of them may be a call whose connection is gone, and
   * must not take the event away from the others.
   */
  async next(call: Call): Promise<string> {
    const missed = this.#missed.shift();
    if (missed !== undefined) return missed;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.#waiting.add(resolve);
    try {
      return await race(promise, call);
    } finally {
      this.#waiting.delete(resolve);
    }
  }
}
