import { Fault } from "../../base/fault.ts";
import type { OperationId } from "../../base/ids.ts";
import type { Database } from "./database.ts";
import type { NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
import type { RecordedFault } from "./sandbox-record.ts";
import type { ClaimRequest, OperationFilter, OperationStore } from "./store.ts";

interface Row {
  readonly id: string;
  readonly kind: string;
  readonly subject: string;
  readonly state: OperationState;
  readonly priority: number;
  readonly attempt: number;
  readonly wake_at: number;
  readonly lease: number;
  readonly submitted_at: string;
  readonly finished_at: string | null;
  readonly input: string;
  readonly fault: string | null;
}

const ACTIVE = "state IN ('queued', 'running')";

/** Operations in SQLite. */
export class OperationTable implements OperationStore {
  readonly #db: Database;
  readonly #now: () => Date;

  constructor(db: Database, now: () => Date) {
    this.#db = db;
    this.#now = now;
  }

  submit(operation: NewOperation): Promise<OperationRecord> {
    return this.#db.write(() => {
      const { id, kind, subject, input, priority } = operation;
      const active = this.#db.get<Row>(
        `SELECT * FROM operations WHERE kind = ? AND subject = ? AND ${ACTIVE}`,
        kind,
        subject,
      );
      if (active !== undefined) return fromRow(active);
      const now = this.#now();
      const sql =
        "INSERT INTO operations (id, kind, subject, state, priority, attempt, wake_at, lease, submitted_at, input) VALUES (?, ?, ?, 'queued', ?, 0, ?, 0, ?, ?)";
      this.#db.run(sql, id, kind, subject, priority, now.getTime(), now.toISOString(), JSON.stringify(input));
      return this.#known(id);
    });
  }

  async get(id: OperationId): Promise<OperationRecord | undefined> {
    const row = this.#db.get<Row>("SELECT * FROM operations WHERE id = ?", id);
    return row === undefined ? undefined : fromRow(row);
  }

  async list(filter: OperationFilter = {}): Promise<readonly OperationRecord[]> {
    const where: string[] = [];
    const values: (string | number)[] = [];
    if (filter.states !== undefined) {
      where.push(`state IN (${filter.states.map(() => "?").join(", ")})`);
      values.push(...filter.states);
    }
    if (filter.subject !== undefined) {
      where.push("subject = ?");
      values.push(filter.subject);
    }
    if (filter.kind !== undefined) {
      where.push("kind = ?");
      values.push(filter.kind);
    }
    const condition = where.length === 0 ? "" : ` WHERE ${where.join(" AND ")}`;
    const sql = `SELECT * FROM operations${condition} ORDER BY submitted_at DESC LIMIT ?`;
    return this.#db.all<Row>(sql, ...values, filter.limit ?? -1).map(fromRow);
  }

  claim(request: ClaimRequest): Promise<readonly OperationRecord[]> {
    return this.#db.write(() => {
      const busy = new Set(request.busy);
      const now = this.#now().getTime();
      const claimed: OperationRecord[] = [];
      for (const [kind, room] of request.room) {
        const sql =
          "SELECT * FROM operations WHERE kind = ? AND state = 'queued' AND wake_at <= ? ORDER BY priority, wake_at LIMIT ?";
        // A subject has at most one active operation of a kind, so that many rows can be passed over.
        const due = this.#db.all<Row>(sql, kind, now, room + busy.size);
        for (const row of due.filter((r) => !busy.has(r.subject)).slice(0, room)) {
          busy.add(row.subject);
          const begin = "UPDATE operations SET state = 'running', attempt = attempt + 1, lease = ? WHERE id = ?";
          this.#db.run(begin, this.#newLease(), row.id);
          claimed.push(this.#known(row.id));
        }
      }
      return claimed;
    });
  }

  settle(id: OperationId, lease: number, settlement: Settlement): Promise<OperationRecord> {
    return this.#db.write(() => {
      const again = settlement.state === "queued";
      const fault = "fault" in settlement && settlement.fault !== undefined ? JSON.stringify(settlement.fault) : null;
      const changes = this.#db.run(
        "UPDATE operations SET state = ?, wake_at = ?, attempt = attempt - ?, fault = ?, finished_at = ? WHERE id = ? AND lease = ? AND state = 'running'",
        settlement.state,
        again ? settlement.wakeAt : 0,
        again && settlement.uncounted === true ? 1 : 0,
        fault,
        again ? null : this.#now().toISOString(),
        id,
        lease,
      );
      if (changes === 0) throw new Fault("aborted", `operation ${id} is not ours any more`, { operationId: id });
      return this.#known(id);
    });
  }

  cancelQueued(id: OperationId, reason: string): Promise<boolean> {
    return this.#db.write(() => {
      const at = this.#now().toISOString();
      const fault: RecordedFault = { code: "cancelled", message: reason, at };
      const sql =
        "UPDATE operations SET state = 'cancelled', finished_at = ?, fault = ? WHERE id = ? AND state = 'queued'";
      return this.#db.run(sql, at, JSON.stringify(fault), id) > 0;
    });
  }

  requeueRunning(): Promise<number> {
    return this.#db.write(() => {
      const now = this.#now().getTime();
      return this.#db.run("UPDATE operations SET state = 'queued', wake_at = ? WHERE state = 'running'", now);
    });
  }

  async nextWake(kinds: readonly string[]): Promise<number | undefined> {
    const list = kinds.map(() => "?").join(", ");
    const sql = `SELECT min(wake_at) AS at FROM operations WHERE state = 'queued' AND kind IN (${list})`;
    return this.#db.get<{ at: number | null }>(sql, ...kinds)?.at ?? undefined;
  }

  prune(before: Date): Promise<number> {
    return this.#db.write(() => this.#db.run("DELETE FROM operations WHERE finished_at < ?", before.toISOString()));
  }

  #known(id: string): OperationRecord {
    const row = this.#db.get<Row>("SELECT * FROM operations WHERE id = ?", id);
    if (row === undefined)
      throw new Fault("internal", `operation ${id} vanished inside of its transaction`, { operationId: id });
    return fromRow(row);
  }

  #newLease(): number {
    this.#db.run("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = 'lease'");
    return Number(this.#db.get<{ value: string }>("SELECT value FROM meta WHERE key = 'lease'")?.value);
  }
}

function fromRow(row: Row): OperationRecord {
  return {
    id: row.id as OperationId,
    kind: row.kind,
    subject: row.subject,
    input: JSON.parse(row.input) as OperationRecord["input"],
    state: row.state,
    priority: row.priority,
    attempt: row.attempt,
    wakeAt: row.wake_at,
    lease: row.lease,
    submittedAt: row.submitted_at,
    ...(row.finished_at === null ? {} : { finishedAt: row.finished_at }),
    ...(row.fault === null ? {} : { fault: JSON.parse(row.fault) as RecordedFault }),
  };
}
