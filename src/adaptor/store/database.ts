import { randomUUID } from "node:crypto";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import { LocalMark, type Mark } from "./local-mark.ts";
import { prepareSchema, type Schema } from "./schema.ts";
import type { Epoch, Position } from "./store.ts";

interface PendingWrite {
  run(): void;
  settle(error?: unknown): void;
}

/**
 * One SQLite file with group commit: writes of one turn of the event loop share a transaction, hence one fsync. Each
 * runs in a savepoint of its own, so that one that throws undoes only itself.
 */
export class Database implements AsyncDisposable {
  readonly #db: DatabaseSync;
  readonly #mark: LocalMark;
  /** How its file compared with what was remembered of it. */
  readonly lineage: Schema["lineage"];
  readonly #statements = new Map<string, StatementSync>();
  #pending: PendingWrite[] = [];
  #closed = false;

  private constructor(db: DatabaseSync, mark: LocalMark, schema: Schema) {
    this.#db = db;
    this.#mark = mark;
    this.lineage = schema.lineage;
    mark.begin(schema.mark);
  }

  get epoch(): Epoch {
    const { epoch, epochCreatedAt } = this.#mark.seen;
    return { id: epoch, createdAt: new Date(epochCreatedAt) };
  }

  get position(): Position {
    const { epoch, seq } = this.#mark.seen;
    return { epoch, seq };
  }

  /**
   * Opens the file, or makes it, and `<name>-mark.sqlite` beside it, which remembers how far the store has come: a file
   * that was lost, or replaced by an older copy, is noticed. It stays locked: the store has one owner.
   * @throws Fault failed_precondition when another adaptor has it open, or a newer one wrote it
   */
  static async open(path: string, now: () => Date): Promise<Database> {
    await mkdirPrivate(dirname(path));
    const mark = LocalMark.open(`${path.replace(/\.sqlite$/, "")}-mark.sqlite`);
    const db = new DatabaseSync(path, { timeout: 200 });
    try {
      // EXCLUSIVE keeps the lock until close or death, and needs no shared memory file beside the WAL.
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
      return new Database(db, mark, prepareSchema(db, path, now, mark.seen));
    } catch (cause) {
      db.close();
      mark[Symbol.dispose]();
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

  /** Begins a new epoch instead of `instead`. */
  async beginEpoch(instead: string, now: Date): Promise<void> {
    if (this.epoch.id !== instead) return;
    const next: Mark = { epoch: randomUUID(), epochCreatedAt: now.toISOString(), seq: this.#mark.seen.seq };
    await this.write(() => {
      this.run("UPDATE meta SET value = ? WHERE key = 'epoch'", next.epoch);
      this.run("UPDATE meta SET value = ? WHERE key = 'epoch_created_at'", next.epochCreatedAt);
      // Leases that were given before must stay lower than those that follow.
      const lease = "UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), ?) AS TEXT) WHERE key = 'lease'";
      this.run(lease, now.getTime());
    });
    this.#mark.begin({ ...next, seq: this.#mark.seen.seq });
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
    this.#mark[Symbol.dispose]();
  }

  #flush(): void {
    const batch = this.#pending;
    if (batch.length === 0) return;
    this.#pending = [];
    const done: PendingWrite[] = [];
    const failed: [PendingWrite, unknown][] = [];
    const seq = this.#mark.seen.seq + 1;
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
      this.run(
        "INSERT INTO meta VALUES ('seq', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        String(seq),
      );
      this.#db.exec("COMMIT");
      this.#mark.see({ ...this.#mark.seen, seq });
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
