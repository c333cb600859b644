import { type FSWatcher, watch } from "node:fs";
import type { Logger } from "../../base/log.ts";

/** Carries one container's copy of a volume on; never rejects. @returns false: it shall be tried again */
export type Update = () => Promise<boolean>;

export interface VolumeWatchDeps {
  readonly log: Logger;
  /** Watches a directory for changed names; node's fs.watch, but in tests. */
  readonly watch?: (dir: string, changed: (name: string | null) => void, failed: (error: Error) => void) => Closeable;
}

interface Closeable {
  close(): void;
}

interface Follower {
  readonly source: string;
  readonly update: Update;
  running: Promise<void> | undefined;
  /** A change that the running update may have missed. */
  again: boolean;
  failures: number;
  timer: NodeJS.Timeout | undefined;
  stopped: boolean;
}

interface Watched {
  readonly followers: Set<Follower>;
  watcher: Closeable | undefined;
}

/** What comes within this time is one change: kubelet touches a volume several times, and several of a pod at once. */
const BATCH_MS = 50;
/** Updates on their way at a time, of all pods. */
const PARALLEL = 4;
const RETRY_MS = [1_000, 2_000, 5_000, 15_000, 30_000] as const;
/** Where the kernel gives no watch (fs.inotify limits) the volume is looked at this often: tokens must not expire. */
const UNWATCHED_MS = 30_000;
/** What kubelet renames when a volume has changed; nothing else in there is a change. */
const DATA = "..data";

/**
 * Tells of changed volumes, for all pods of the node: one inotify instance (libuv's), one watch for each directory,
 * nothing done while nothing changes. Changes that come together are handled together, a few at a time.
 */
export class VolumeWatch {
  readonly #log: Logger;
  readonly #watch: NonNullable<VolumeWatchDeps["watch"]>;
  readonly #watched = new Map<string, Watched>();
  readonly #due = new Set<Follower>();
  #batch: NodeJS.Timeout | undefined;
  #running = 0;

  constructor(deps: VolumeWatchDeps) {
    this.#log = deps.log;
    this.#watch = deps.watch ?? watchNames;
  }

  /** Directories that are watched. */
  get count(): number {
    return this.#watched.size;
  }

  /**
   * Calls `update` soon, and after every change of the volume.
   * @returns ends it; resolves when no update is on its way any more
   */
  follow(source: string, update: Update): () => Promise<void> {
    const follower: Follower = {
      ...{ source, update, running: undefined, again: false, failures: 0, timer: undefined, stopped: false },
    };
    let watched = this.#watched.get(source);
    if (watched === undefined) {
      watched = { followers: new Set(), watcher: undefined };
      this.#watched.set(source, watched);
      this.#open(source, watched);
    }
    watched.followers.add(follower);
    // What happened before the watch was there.
    this.#mark(follower);
    return () => this.#unfollow(follower);
  }

  async #unfollow(follower: Follower): Promise<void> {
    follower.stopped = true;
    clearTimeout(follower.timer);
    this.#due.delete(follower);
    const watched = this.#watched.get(follower.source);
    if (watched?.followers.delete(follower) && watched.followers.size === 0) {
      watched.watcher?.close();
      this.#watched.delete(follower.source);
    }
    await follower.running;
  }

  #open(source: string, watched: Watched): void {
    const failed = (err: Error): void => {
      watched.watcher?.close();
      watched.watcher = undefined;
      if (this.#watched.get(source) !== watched) return;
      const remedy = "raise fs.inotify.max_user_watches and max_user_instances";
      this.#log.warn({ err, volume: source, remedy }, "volume cannot be watched, it is looked at every 30 s");
      setTimeout(() => {
        if (this.#watched.get(source) !== watched) return;
        this.#open(source, watched);
        for (const follower of watched.followers) this.#mark(follower);
      }, UNWATCHED_MS).unref();
    };
    const changed = (name: string | null): void => {
      if (name !== null && name !== DATA) return;
      for (const follower of watched.followers) this.#mark(follower);
    };
    try {
      watched.watcher = this.#watch(source, changed, failed);
    } catch (error) {
      failed(error as Error);
    }
  }

  #mark(follower: Follower): void {
    if (follower.stopped) return;
    if (follower.running !== undefined) {
      follower.again = true;
      return;
    }
    this.#due.add(follower);
    this.#batch ??= setTimeout(() => {
      this.#batch = undefined;
      this.#runDue();
    }, BATCH_MS);
  }

  #runDue(): void {
    for (const follower of this.#due) {
      if (this.#running >= PARALLEL) return;
      this.#due.delete(follower);
      this.#running += 1;
      follower.running = this.#run(follower).finally(() => {
        this.#running -= 1;
        follower.running = undefined;
        if (follower.again) {
          follower.again = false;
          this.#mark(follower);
        }
        this.#runDue();
      });
    }
  }

  async #run(follower: Follower): Promise<void> {
    if (await follower.update()) {
      follower.failures = 0;
      return;
    }
    if (follower.stopped) return;
    const delay = RETRY_MS[Math.min(follower.failures, RETRY_MS.length - 1)];
    follower.failures += 1;
    clearTimeout(follower.timer);
    follower.timer = setTimeout(() => this.#mark(follower), delay);
    follower.timer.unref();
  }
}

function watchNames(dir: string, changed: (name: string | null) => void, failed: (error: Error) => void): FSWatcher {
  const watcher = watch(dir, { persistent: false }, (_event, name) => changed(name));
  watcher.on("error", failed);
  return watcher;
}
