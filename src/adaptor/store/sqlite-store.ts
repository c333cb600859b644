import { Database } from "./database.ts";
import { OperationTable } from "./operation-table.ts";
import { SandboxTable } from "./sandbox-table.ts";
import type { AdaptorStore, Epoch, NodeStore } from "./store.ts";

/** The embedded store: one SQLite file (WAL, synchronous=FULL) that one adaptor owns. */
export class SqliteStore implements AdaptorStore {
  readonly epoch: Epoch;
  readonly sandboxes: SandboxTable;
  readonly operations: OperationTable;
  readonly nodes: NodeStore;
  readonly #db: Database;

  private constructor(db: Database, now: () => Date) {
    this.#db = db;
    this.epoch = db.epoch;
    this.sandboxes = new SandboxTable(db, now);
    this.operations = new OperationTable(db, now);
    this.nodes = { report: (nodeId, bootId) => report(db, now, nodeId, bootId) };
  }

  /** @throws Fault failed_precondition when another adaptor has the file open, or it cannot be read */
  static async open(path: string, now: () => Date = () => new Date()): Promise<SqliteStore> {
    return new SqliteStore(await Database.open(path, now), now);
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

function report(db: Database, now: () => Date, nodeId: string, bootId: string): Promise<string | undefined> {
  return db.write(() => {
    const known = db.get<{ boot_id: string }>("SELECT boot_id FROM nodes WHERE id = ?", nodeId);
    const sql =
      "INSERT INTO nodes VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, seen_at = excluded.seen_at";
    db.run(sql, nodeId, bootId, now().toISOString());
    return known?.boot_id;
  });
}
