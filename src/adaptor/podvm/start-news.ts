import type { Call } from "../../base/call.ts";
import type { SandboxId } from "../../base/ids.ts";
import { race } from "../../base/retry.ts";
import type { AdaptorStore, OperationRecord, SandboxRecord } from "../store/index.ts";

/** What came since it was asked for last. */
export interface News {
  /** The newest record, when one was written. */
  readonly record?: SandboxRecord;
  /** Operations of the start that failed and are tried again, oldest first. */
  readonly troubles: readonly OperationRecord[];
  /** Something may have been missed: the store is to be asked. */
  readonly look: boolean;
}

/** One who follows a start. */
export interface Following extends Disposable {
  /** Waits when there is nothing. @throws Fault when the call ends first */
  next(call: Call): Promise<News>;
}

/** Whether the store has begun a new epoch, and who has not looked for long, is seen so often, ms. */
const TICK_MS = 2_000;
/** Who follows looks into the store this often though nothing was told, ms: news may be lost with a connection. */
const LOOK_MS = 60_000;

/**
 * Tells those who follow starts what is new of theirs, whichever adaptor wrote it: one listener on the store for
 * thousands of them, and no questions while nothing happens. Listens from when the first one follows, so a caller that
 * reads the store afterwards misses nothing.
 */
export class StartNews {
  readonly #store: Pick<AdaptorStore, "sandboxes" | "operations" | "epoch">;
  readonly #lookMs: number;
  readonly #followers = new Map<string, Set<Follower>>();
  #stop: (() => void) | undefined;

  constructor(
    store: Pick<AdaptorStore, "sandboxes" | "operations" | "epoch">,
    options: { readonly lookMs?: number } = {},
  ) {
    this.#store = store;
    this.#lookMs = options.lookMs ?? LOOK_MS;
  }

  follow(id: SandboxId): Following {
    const follower = new Follower(() => this.#unfollow(id, follower));
    const others = this.#followers.get(id);
    if (others === undefined) this.#followers.set(id, new Set([follower]));
    else others.add(follower);
    this.#stop ??= this.#listen();
    return follower;
  }

  #unfollow(id: SandboxId, follower: Follower): void {
    const followers = this.#followers.get(id);
    followers?.delete(follower);
    if (followers?.size === 0) this.#followers.delete(id);
    if (this.#followers.size > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }

  #listen(): () => void {
    const { sandboxes, operations } = this.#store;
    const unwatchRecords = sandboxes.watch((record) => this.#tell(record.id, (f) => f.onRecord(record)));
    const unwatchOperations = operations.watch((operation) => this.#onOperation(operation));
    let epoch = this.#store.epoch.id;
    const timer = setInterval(
      () => {
        const changed = this.#store.epoch.id !== epoch;
        epoch = this.#store.epoch.id;
        const now = performance.now();
        for (const followers of this.#followers.values()) {
          for (const follower of followers) if (changed || now - follower.lookedAt >= this.#lookMs) follower.look(now);
        }
      },
      Math.min(TICK_MS, this.#lookMs),
    ).unref();
    return () => {
      unwatchRecords();
      unwatchOperations();
      clearInterval(timer);
    };
  }

  #onOperation(operation: OperationRecord): void {
    if (operation.state !== "queued" || operation.fault === undefined) return;
    const { kind, subject, input } = operation;
    const ids = kind === "start-vm" ? [subject] : kind === "create-batch" ? (input.members ?? "").split(" ") : [];
    for (const id of ids) this.#tell(id, (f) => f.onTrouble(operation));
  }

  #tell(id: string, how: (follower: Follower) => void): void {
    for (const follower of this.#followers.get(id) ?? []) how(follower);
  }
}

class Follower implements Following {
  lookedAt = performance.now();
  readonly #end: () => void;
  #record: SandboxRecord | undefined;
  #troubles: OperationRecord[] = [];
  #look = false;
  #wake: () => void = () => undefined;

  constructor(end: () => void) {
    this.#end = end;
  }

  onRecord(record: SandboxRecord): void {
    this.#record = record;
    this.#wake();
  }

  onTrouble(operation: OperationRecord): void {
    this.#troubles.push(operation);
    this.#wake();
  }

  look(now: number): void {
    this.lookedAt = now;
    this.#look = true;
    this.#wake();
  }

  async next(call: Call): Promise<News> {
    if (this.#record === undefined && this.#troubles.length === 0 && !this.#look) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await race(promise, call);
    }
    const record = this.#record;
    const news = { ...(record === undefined ? {} : { record }), troubles: this.#troubles, look: this.#look };
    this.#record = undefined;
    this.#troubles = [];
    this.#look = false;
    return news;
  }

  [Symbol.dispose](): void {
    this.#end();
  }
}
