import { withDeadline } from "../../../base/call.ts";
import type { SandboxId } from "../../../base/ids.ts";
import type { Logger } from "../../../base/log.ts";
import { backoffMs, race, sleep } from "../../../base/retry.ts";
import type { SandboxRecord } from "../sandbox-record.ts";
import type { RedisDatabase } from "./redis-database.ts";
import { parseOperation, type RedisOperations } from "./redis-operations.ts";
import type { RedisSandboxes } from "./redis-sandboxes.ts";
import type { RedisClient, RedisTarget } from "./redis-target.ts";

const BLOCK_MS = 5_000;
/** A read that is not answered this long after its time is over is given up with its connection, ms. */
const GRACE_MS = 3_000;
const COUNT = 500;

interface Deps {
  readonly target: RedisTarget;
  readonly db: RedisDatabase;
  readonly sandboxes: RedisSandboxes;
  readonly operations: RedisOperations;
  readonly log: Logger;
}

type Entry = [id: string, fields: string[]];

/**
 * Tells watchers here what other adaptors write. A blocking read on a connection of its own; after any interruption
 * everything is read once, so that nothing is missed, only told late.
 */
export class ChangeStream implements AsyncDisposable {
  readonly #deps: Deps;
  readonly #over = new AbortController();
  readonly #running: Promise<void>;
  #client: RedisClient;
  #last: string;

  private constructor(deps: Deps, client: RedisClient, last: string) {
    this.#deps = deps;
    this.#client = client;
    this.#last = last;
    this.#running = this.#follow();
  }

  /** Everything that is written after this resolves will be told. */
  static async open(deps: Deps): Promise<ChangeStream> {
    const client = newClient(deps);
    try {
      const [newest] = await client.xrevrange(deps.db.key("changes"), "+", "-", "COUNT", 1);
      return new ChangeStream(deps, client, newest?.[0] ?? "0-0");
    } catch (e) {
      client.disconnect();
      throw e;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    this.#client.disconnect();
    await this.#running;
  }

  async #follow(): Promise<void> {
    const { log, sandboxes, operations, db } = this.#deps;
    for (let failures = 0, missed = false; !this.#over.signal.aborted; ) {
      try {
        if (missed) {
          const [newest] = await this.#inTime(this.#client.xrevrange(db.key("changes"), "+", "-", "COUNT", 1));
          this.#last = newest?.[0] ?? "0-0";
          await sandboxes.catchUp();
          await operations.catchUp();
          missed = false;
          log.info("changes of other adaptors are followed again");
        }
        const entries = await this.#read();
        failures = 0;
        for (const [id, fields] of entries) {
          this.#last = id;
          this.#tell(fields);
        }
        // The stream keeps a limited number: with so many at once, some may have been dropped before they were read.
        missed = entries.length === COUNT;
      } catch (e) {
        if (this.#over.signal.aborted) return;
        if (!missed) log.warn({ err: e }, "changes of other adaptors cannot be followed");
        missed = true;
        // A new one: the old one may have a read under way that nobody waits for any more.
        this.#client.disconnect();
        this.#client = newClient(this.#deps);
        await sleep(backoffMs(failures++, 100, 2000), this.#over).catch(() => undefined); // the end is seen above
      }
    }
  }

  async #read(): Promise<Entry[]> {
    const key = this.#deps.db.key("changes");
    const reading = this.#client.xread("COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", key, this.#last);
    const answer = (await this.#inTime(reading)) as [string, Entry[]][] | null;
    return answer?.[0]?.[1] ?? [];
  }

  #inTime<T>(work: Promise<T>): Promise<T> {
    return race(work, withDeadline(BLOCK_MS + GRACE_MS, this.#over));
  }

  #tell(fields: readonly string[]): void {
    const { sandboxes, operations, db } = this.#deps;
    const value = (name: string): string => fields[fields.indexOf(name) + 1] ?? "";
    const [kind, body] = [value("kind"), value("body")];
    if (kind === "removed") sandboxes.forget(body as SandboxId);
    else if (value("by") === db.holder)
      return; // told when it was written
    else if (kind === "sandbox") sandboxes.tell(JSON.parse(body) as SandboxRecord);
    else if (kind === "operation") operations.tell(parseOperation(body));
  }
}

function newClient({ target, log }: Deps): RedisClient {
  const client = target.client("patient");
  client.on("error", (e) => log.debug({ err: e }, "connection to redis"));
  return client;
}
