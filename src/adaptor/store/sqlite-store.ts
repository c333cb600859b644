import { Database } from "./database.ts";
import { FactTable } from "./fact-table.ts";
import { OperationTable } from "./operation-table.ts";
import { SandboxTable } from "./sandbox-table.ts";
import type { AdaptorStore, Epoch, Position } from "./store.ts";

/** The embedded store: one SQLite file (WAL, synchronous=FULL) that one adaptor owns. */
export class SqliteStore implements AdaptorStore {
  readonly sandboxes: SandboxTable;
  readonly operations: OperationTable;
  readonly facts: FactTable;
  readonly #db: Database;
  readonly #now: () => Date;

  private constructor(db: Database, now: () => Date) {
    this.#db = db;
    this.#now = now;
    this.sandboxes = new SandboxTable(db, now);
    this.operations = new OperationTable(db, now);
    this.facts = new FactTable(db);
  }

  /** @throws Fault failed_precondition when another adaptor has the file open, or it cannot be read */
  static async open(path: string, now: () => Date = () => new Date()): Promise<SqliteStore> {
    return new SqliteStore(await Database.open(path, now), now);
  }

  get epoch(): Epoch {
    return this.#db.epoch;
  }

  get position(): Position {
    return this.#db.position;
  }

  beginEpoch(instead: string): Promise<void> {
    return this.#db.beginEpoch(instead, this.#now());
  }

  /** One owner agrees with itself: this only remembers over restarts. */
  agree(key: string, value: string): Promise<string> {
    const name = `agreed:${key}`;
    return this.#db.write(() => {
      this.#db.run("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", name, value);
      return this.#db.get<{ value: string }>("SELECT value FROM meta WHERE key = ?", name)?.value ?? value;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db[Symbol.asyncDispose]();
  }
}
