import { join } from "node:path";
import { mkdirPrivate } from "../../../base/files.ts";
import type { Logger } from "../../../base/log.ts";
import { LocalMark } from "../local-mark.ts";
import type { AdaptorStore, Epoch, Position } from "../store.ts";
import { ChangeStream } from "./change-stream.ts";
import { RedisDatabase, type RedisDatabaseDeps } from "./redis-database.ts";
import { RedisFacts } from "./redis-facts.ts";
import { RedisOperations } from "./redis-operations.ts";
import { RedisSandboxes } from "./redis-sandboxes.ts";
import type { RedisTarget } from "./redis-target.ts";

export interface RedisStoreDeps {
  readonly target: RedisTarget;
  /** Of all keys; `{…}` makes it one hash slot. */
  readonly prefix: string;
  /** The adaptor's own directory: two adaptors on one Redis have two. */
  readonly stateDir: string;
  readonly leaseMs: number;
  readonly log: Logger;
  readonly now?: () => Date;
  readonly schema?: RedisDatabaseDeps["schema"];
}

/** The store that adaptors share: Redis, with the append-only file synced at every write. */
export class RedisStore implements AdaptorStore {
  readonly sandboxes: RedisSandboxes;
  readonly operations: RedisOperations;
  readonly facts: RedisFacts;
  readonly #db: RedisDatabase;
  readonly #parts: AsyncDisposableStack;

  private constructor(db: RedisDatabase, leaseMs: number, now: () => Date, parts: AsyncDisposableStack) {
    this.#db = db;
    this.#parts = parts;
    this.sandboxes = new RedisSandboxes(db, now);
    this.operations = new RedisOperations(db, leaseMs, now);
    this.facts = new RedisFacts(db);
  }

  /**
   * @throws Fault unavailable when Redis does not answer; failed_precondition when a newer adaptor wrote its data, or
   * another adaptor uses this stateDir
   */
  static async open(deps: RedisStoreDeps): Promise<RedisStore> {
    const { target, prefix, leaseMs, log, now = () => new Date() } = deps;
    await using parts = new AsyncDisposableStack();
    await mkdirPrivate(deps.stateDir);
    const mark = parts.use(LocalMark.open(join(deps.stateDir, "redis-mark.sqlite")));
    const schema = deps.schema === undefined ? {} : { schema: deps.schema };
    const db = parts.use(await RedisDatabase.open({ target, prefix, mark, leaseMs, log, now, ...schema }));
    const store = new RedisStore(db, leaseMs, now, new AsyncDisposableStack());
    const { sandboxes, operations } = store;
    parts.use(await ChangeStream.open({ target, db, sandboxes, operations, log }));
    store.#parts.use(parts.move());
    return store;
  }

  get epoch(): Epoch {
    return this.#db.epoch;
  }

  get position(): Position {
    return this.#db.position;
  }

  beginEpoch(instead: string): Promise<void> {
    return this.#db.beginEpoch(instead);
  }

  async agree(key: string, value: string): Promise<string> {
    return String(await this.#db.run("agree", key, value));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}
