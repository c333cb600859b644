import { EventEmitter } from "node:events";
import { setImmediate } from "node:timers/promises";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import { changed, inserted } from "./changed-record.ts";
import type { Database } from "./database.ts";
import { PHASES } from "./phase-table.ts";
import { readRecord } from "./record-version.ts";
import type { Phase, SandboxChange, SandboxRecord } from "./sandbox-record.ts";
import type { SandboxFilter, SandboxStore } from "./store.ts";

/** Records of one part of a scan: reading them takes about a millisecond. */
const PART = 100;

interface Row {
  readonly body: string;
}

/** Sandbox records in SQLite. The record is one JSON text; what is searched for has columns of its own. */
export class SandboxTable implements SandboxStore {
  readonly #db: Database;
  readonly #now: () => Date;
  readonly #changes = new EventEmitter<{ change: [SandboxRecord] }>().setMaxListeners(0);

  constructor(db: Database, now: () => Date) {
    this.#db = db;
    this.#now = now;
  }

  async insert(record: Omit<SandboxRecord, "revision" | "phaseSince">): Promise<SandboxRecord> {
    const full = inserted(record, this.#now());
    await this.#db.write(() => {
      const { id, revision, phase, nodeId } = full;
      const sql =
        "INSERT INTO sandboxes (id, revision, phase, node_id, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
      if (this.#db.run(sql, id, revision, phase, nodeId, JSON.stringify(full)) === 0) {
        throw new Fault("already_exists", `sandbox ${id} has a record already`, { sandboxId: id });
      }
    });
    return this.#tell(full);
  }

  async get(id: SandboxId): Promise<SandboxRecord | undefined> {
    const row = this.#db.get<Row>("SELECT body FROM sandboxes WHERE id = ?", id);
    return row === undefined ? undefined : readRecord(row.body);
  }

  async update(current: SandboxRecord, change: SandboxChange): Promise<SandboxRecord> {
    const next = changed(current, change, this.#now());
    await this.#db.write(() => {
      const sql = "UPDATE sandboxes SET revision = ?, phase = ?, node_id = ?, body = ? WHERE id = ? AND revision = ?";
      const values = [
        next.revision,
        next.phase,
        next.nodeId,
        JSON.stringify(next),
        current.id,
        current.revision,
      ] as const;
      if (this.#db.run(sql, ...values) === 0) throw changedMeanwhile(current.id);
    });
    // JSON drops what is undefined: what listeners and callers get must be what a later read gives.
    return this.#tell(JSON.parse(JSON.stringify(next)) as SandboxRecord);
  }

  async remove(current: SandboxRecord): Promise<void> {
    await this.#db.write(() => {
      const sql = "DELETE FROM sandboxes WHERE id = ? AND revision = ?";
      if (this.#db.run(sql, current.id, current.revision) === 0) throw changedMeanwhile(current.id);
    });
  }

  async list(filter: SandboxFilter = {}): Promise<readonly SandboxRecord[]> {
    const where: string[] = [];
    const values: string[] = [];
    if (filter.phases !== undefined) {
      where.push(`phase IN (${filter.phases.map(() => "?").join(", ")})`);
      values.push(...filter.phases);
    }
    if (filter.nodeId !== undefined) {
      where.push("node_id = ?");
      values.push(filter.nodeId);
    }
    const condition = where.length === 0 ? "" : ` WHERE ${where.join(" AND ")}`;
    return this.#db.all<Row>(`SELECT body FROM sandboxes${condition}`, ...values).map((row) => readRecord(row.body));
  }

  async *scan(phases?: readonly Phase[]): AsyncIterable<readonly SandboxRecord[]> {
    if (phases === undefined) yield* this.#parts("id > ?", []);
    // One phase after the other: each is one stretch of an index, where all together would be sorted for every part.
    else
      for (const phase of PHASES.filter((p) => phases.includes(p))) yield* this.#parts("id > ? AND phase = ?", [phase]);
  }

  async *#parts(condition: string, values: readonly string[]): AsyncIterable<readonly SandboxRecord[]> {
    const sql = `SELECT body FROM sandboxes WHERE ${condition} ORDER BY id LIMIT ${PART}`;
    for (let after = ""; ; ) {
      const part = this.#db.all<Row>(sql, after, ...values).map((row) => readRecord(row.body));
      if (part.length > 0) yield part;
      if (part.length < PART) return;
      after = part.at(-1)?.id ?? after;
      await setImmediate();
    }
  }

  async count(phases: readonly Phase[]): Promise<number> {
    const sql = `SELECT count(*) AS n FROM sandboxes WHERE phase IN (${phases.map(() => "?").join(", ")})`;
    return this.#db.get<{ n: number }>(sql, ...phases)?.n ?? 0;
  }

  watch(listener: (record: SandboxRecord) => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  #tell(record: SandboxRecord): SandboxRecord {
    this.#changes.emit("change", record);
    return record;
  }
}

function changedMeanwhile(id: SandboxId): Fault {
  return new Fault("aborted", `the record of sandbox ${id} was changed meanwhile`, { sandboxId: id });
}
