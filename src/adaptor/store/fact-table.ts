import type { Database } from "./database.ts";
import type { FactStore } from "./fact-store.ts";

interface Row {
  readonly name: string;
  readonly value: string;
}

/** Facts in SQLite, whose one owner leads in everything. */
export class FactTable implements FactStore {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  async get(name: string): Promise<string | undefined> {
    return this.#db.get<Row>("SELECT * FROM facts WHERE name = ?", name)?.value;
  }

  async list(prefix: string): Promise<ReadonlyMap<string, string>> {
    const rows = this.#db.all<Row>(
      "SELECT * FROM facts WHERE substr(name, 1, ?) = ? ORDER BY name",
      prefix.length,
      prefix,
    );
    return new Map(rows.map(({ name, value }) => [name, value]));
  }

  swap(name: string, expected: string | undefined, next: string | undefined): Promise<boolean> {
    return this.#db.write(() => {
      const known = this.#db.get<Row>("SELECT * FROM facts WHERE name = ?", name)?.value;
      if (known !== expected) return false;
      if (next === undefined) this.#db.run("DELETE FROM facts WHERE name = ?", name);
      else {
        const sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        this.#db.run(sql, name, next);
      }
      return true;
    });
  }

  async lead(): Promise<number> {
    return 1;
  }
}
