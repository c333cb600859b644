import { randomUUID } from "node:crypto";
import { Fault } from "../../../base/fault.ts";
import type { Logger } from "../../../base/log.ts";
import type { LocalMark } from "../local-mark.ts";
import type { Epoch, Position } from "../store.ts";
import { type RedisClient, type RedisTarget, reasonOf } from "./redis-target.ts";
import { KEYS, MIGRATIONS, migrationScript, OPEN_SCRIPT, SCHEMA, STORE_SCRIPT } from "./store-script.ts";

export interface RedisDatabaseDeps {
  readonly target: RedisTarget;
  /** Of all keys, with a hash tag: `{…}`. */
  readonly prefix: string;
  readonly mark: LocalMark;
  readonly leaseMs: number;
  readonly log: Logger;
  readonly now: () => Date;
  /** Layout versions, for tests of migrations. */
  readonly schema?: { readonly version: number; readonly migrations: ReadonlyMap<number, string> };
}

/** What a command of the store's script answers. Nothing (nil) is an empty string. */
export type Reply = string | number | readonly string[];

interface Pending {
  readonly words: readonly string[];
  resolve(reply: Reply): void;
  reject(error: unknown): void;
}

interface Scripts {
  kataRemoteStore(...values: readonly (string | number)[]): Promise<[string, number, ...Reply[]]>;
  kataRemoteOpen(...values: readonly (string | number)[]): Promise<string[]>;
}

/** More commands than this go in a second script: a script holds all others up. */
const BATCH = 500;

/**
 * The store's data in Redis. Commands of one turn of the event loop are carried out in one step, so all of them reach
 * Redis or none does. Each step checks that this is still the data that was seen last, and not empty or set back; when
 * it is not, the step does nothing, a new epoch is begun, and the commands fail as `unavailable`.
 */
export class RedisDatabase implements AsyncDisposable {
  readonly #deps: RedisDatabaseDeps;
  readonly #client: RedisClient;
  readonly #keys: readonly string[];
  readonly #schema: number;
  #epoch: Epoch = { id: "", createdAt: new Date(0) };
  #firstLease = 0;
  #pending: Pending[] = [];
  #reopening: Promise<void> | undefined;
  #closed = false;

  private constructor(deps: RedisDatabaseDeps) {
    this.#deps = deps;
    this.#keys = KEYS.map((key) => `${deps.prefix}:${key}`);
    this.#schema = deps.schema?.version ?? SCHEMA;
    this.#client = deps.target.client("bounded");
    this.#client.on("error", (e) => deps.log.debug({ err: e }, "connection to redis"));
    this.#client.defineCommand("kataRemoteStore", { numberOfKeys: KEYS.length, lua: STORE_SCRIPT });
    this.#client.defineCommand("kataRemoteOpen", { numberOfKeys: 1, lua: OPEN_SCRIPT });
  }

  /** @throws Fault unavailable when Redis does not answer; failed_precondition when a newer adaptor wrote it */
  static async open(deps: RedisDatabaseDeps): Promise<RedisDatabase> {
    const database = new RedisDatabase(deps);
    try {
      await database.#open();
      database.#firstLease = await database.#lastLease();
      return database;
    } catch (e) {
      await database[Symbol.asyncDispose]();
      throw e;
    }
  }

  get epoch(): Epoch {
    return this.#epoch;
  }

  get position(): Position {
    const { epoch, seq } = this.#deps.mark.seen;
    return { epoch, seq };
  }

  /** All adaptors, this one included, notice with their next command. */
  async beginEpoch(instead: string): Promise<void> {
    if (this.#epoch.id !== instead) return;
    await this.run("beginEpoch", instead, randomUUID(), this.#deps.now().toISOString());
    await this.#reopen();
  }

  /** The last lease that was given when this was opened: what this holder has up to it is from an earlier life. */
  get leaseAtOpen(): number {
    return this.#firstLease;
  }

  get holder(): string {
    return this.#deps.mark.holder;
  }

  key(name: (typeof KEYS)[number]): string {
    return this.#keys[KEYS.indexOf(name)] ?? "";
  }

  /** One command of the store's script. @throws Fault unavailable; whether it was carried out is then unknown */
  run(name: string, ...values: readonly (string | number)[]): Promise<Reply> {
    if (this.#closed) return Promise.reject(new Fault("unavailable", "the adaptor's store is closed"));
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#pending.push({ words: [name, String(values.length), ...values.map(String)], resolve, reject });
    if (this.#pending.length === 1) setImmediate(() => this.#flush());
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    // Not quit(), which waits for a server that may be away; what was flushed is answered or fails.
    await this.#settled;
    this.#client.disconnect();
  }

  #settled: Promise<unknown> = Promise.resolve();

  #flush(): void {
    for (let batch = this.#pending.splice(0, BATCH); batch.length > 0; batch = this.#pending.splice(0, BATCH)) {
      this.#settled = Promise.all([this.#settled, this.#send(batch)]);
    }
  }

  async #send(batch: readonly Pending[]): Promise<void> {
    const { mark, leaseMs, now } = this.#deps;
    const at = now();
    const { epoch, epochCreatedAt, seq } = mark.seen;
    const head = [epoch, this.#schema, seq, mark.holder, leaseMs, at.getTime(), at.toISOString()];
    try {
      const script = this.#client as unknown as Scripts;
      const answer = await script.kataRemoteStore(...this.#keys, ...head, ...batch.flatMap((b) => b.words));
      const [status, newSeq, ...replies] = answer;
      if (status !== "ok") {
        await this.#reopen();
        throw new Fault("unavailable", `${this.#deps.target.address} lost data of the adaptor's store: ask again`);
      }
      mark.see({ epoch, epochCreatedAt, seq: newSeq });
      for (const [i, { resolve }] of batch.entries()) resolve(replies[i] ?? "");
    } catch (cause) {
      const fault = cause instanceof Fault ? cause : this.#unanswered(cause);
      for (const { reject } of batch) reject(fault);
    }
  }

  #unanswered(cause: unknown): Fault {
    const message = `the adaptor's store (${this.#deps.target.address}) does not answer as it should: is redis up?`;
    return new Fault("unavailable", message, {}, { cause: reasonOf(this.#client, cause) });
  }

  /** Once, however many steps noticed it. */
  #reopen(): Promise<void> {
    this.#reopening ??= this.#open().finally(() => {
      this.#reopening = undefined;
    });
    return this.#reopening;
  }

  async #open(): Promise<void> {
    const { mark, now, log, target, schema } = this.#deps;
    const { epoch: knownEpoch, epochCreatedAt: knownSince, seq: knownSeq } = mark.seen;
    const values = [randomUUID(), now().toISOString(), this.#schema, knownEpoch, knownSince, knownSeq];
    let answer: string[];
    try {
      answer = await (this.#client as unknown as Scripts).kataRemoteOpen(this.key("meta"), ...values);
    } catch (cause) {
      throw this.#unanswered(cause);
    }
    const [what = "", epoch = "", epochCreatedAt = "", seq = "0"] = answer;
    if (what === "schema") {
      await this.#migrate(Number(epoch), schema?.migrations ?? MIGRATIONS);
      return this.#open();
    }
    if (what === "new" && knownEpoch === "") log.info({ epoch }, "new store in redis");
    else if (what !== "known") {
      log.error(
        { epoch, knownEpoch, knownSeq, seq: Number(seq), redis: target.address },
        what === "new"
          ? "redis came back empty: a new epoch begins, and no instance from before it is deleted"
          : "redis came back with older data: a new epoch begins, and no instance from before it is deleted",
      );
    } else if (knownEpoch !== "" && knownEpoch !== epoch) {
      log.warn({ epoch, knownEpoch }, "another adaptor began a new epoch of the store");
    }
    mark.begin({ epoch, epochCreatedAt, seq: Number(seq) });
    this.#epoch = { id: epoch, createdAt: new Date(epochCreatedAt) };
  }

  async #migrate(from: number, migrations: ReadonlyMap<number, string>): Promise<void> {
    const script = migrations.get(from);
    if (from > this.#schema || script === undefined) {
      throw new Fault(
        "failed_precondition",
        `${this.#deps.target.address} holds schema ${from} of the adaptor's store, this adaptor knows ${this.#schema}: run the newer one`,
      );
    }
    await this.#client.eval(migrationScript(from, script), KEYS.length, ...this.#keys);
    this.#deps.log.info({ from, to: from + 1 }, "store in redis migrated");
  }

  async #lastLease(): Promise<number> {
    return Number((await this.#client.hget(this.key("meta"), "lease")) ?? 0);
  }
}
