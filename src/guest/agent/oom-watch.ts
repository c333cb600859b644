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
  readonly #events: string[] = [];
  #arrived = Promise.withResolvers<void>();

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
    this.#events.push(containerId);
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers<void>();
  }

  stop(containerId: string): void {
    this.#watched.get(containerId)?.watcher.close();
    this.#watched.delete(containerId);
  }

  /** The next container that was hit; each event goes to one caller. */
  async next(call: Call): Promise<string> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) return event;
      await race(this.#arrived.promise, call);
    }
  }
}
