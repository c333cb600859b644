import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import { prepareSchema } from "./schema.ts";
import type { Epoch } from "./store.ts";

interface PendingWrite {
  run(): void;
  settle(error?: unknown): void;
}

/**
 * One SQLite file with group commit: writes of one turn of the event loop share a transaction, hence one fsync. Each
 * runs in a savepoint of its own, so that one that throws undoes only itself.
 */
export class Database implements AsyncDisposable {
  readonly epoch: Epoch;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #pending: PendingWrite[] = [];
  #closed = false;

  private constructor(db: DatabaseSync, epoch: Epoch) {
    this.#db = db;
    this.epoch = epoch;
  }

  /**
   * Opens the file, or makes it. It stays locked: the store has one owner.
   * @throws Fault failed_precondition when another adaptor has it open, or a newer one wrote it
   */
  static async open(path: string, now: () => Date): Promise<Database> {
    await mkdirPrivate(dirname(path));
    const db = new DatabaseSync(path, { timeout: 200 });
    try {
      // EXCLUSIVE keeps the lock until close or death, and needs no shared memory file beside the WAL.
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
      return new Database(db, prepareSchema(db, path, now));
    } catch (cause) {
      db.close();
      if (cause instanceof Fault) throw cause;
      const busy = (cause as { errcode?: number }).errcode === 5; // SQLITE_BUSY
      const message = busy
        ? `${path} is in use: another adaptor runs with this stateDir`
        : `${path} cannot be opened as the adaptor's store`;
      throw new Fault("failed_precondition", message, {}, { cause });
    }
  }

  /** Rows of a query, as the last commit left them. */
  all<Row>(sql: string, ...values: readonly (string | number | null)[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  get<Row>(sql: string, ...values: readonly (string | number | null)[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined;
  }

  /** Only inside of a write. @returns the number of rows changed */
  run(sql: string, ...values: readonly (string | number | null)[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** Runs `work` in a transaction; resolves with its result once that is on disk, rejects with what it threw. */
  write<T>(work: () => T): Promise<T> {
    if (this.#closed) return Promise.reject(new Fault("unavailable", "the adaptor's store is closed"));
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let result: { readonly value: T } | undefined;
    this.#pending.push({
      run: () => {
        result = { value: work() };
      },
      settle: (error) => {
        if (result === undefined || error !== undefined) reject(error);
        else resolve(result.value);
      },
    });
    if (this.#pending.length === 1) setImmediate(() => this.#flush());
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    this.#db.close();
  }

  #flush(): void {
    const batch = this.#pending;
    if (batch.length === 0) return;
    this.#pending = [];
    const done: PendingWrite[] = [];
    const failed: [PendingWrite, unknown][] = [];
    try {
      this.#db.exec("BEGIN IMMEDIATE");
      for (const write of batch) {
        this.#db.exec("SAVEPOINT one");
        try {
          write.run();
          done.push(write);
        } catch (e) {
          this.#db.exec("ROLLBACK TO one");
          failed.push([write, e]);
        }
        this.#db.exec("RELEASE one");
      }
      this.#db.exec("COMMIT");
    } catch (cause) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      const fault = new Fault("unavailable", "the adaptor's store could not be written", {}, { cause });
      for (const write of batch) write.settle(fault);
      return;
    }
    for (const write of done) write.settle();
    for (const [write, e] of failed) write.settle(e);
  }

  #statement(sql: string): StatementSync {
    const known = this.#statements.get(sql) ?? this.#db.prepare(sql);
    this.#statements.set(sql, known);
    return known;
  }
}
