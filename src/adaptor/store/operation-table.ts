import { EventEmitter } from "node:events";
import { Fault } from "../../base/fault.ts";
import type { OperationId } from "../../base/ids.ts";
import type { Database } from "./database.ts";
import type { HeldLease, NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
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
  readonly progress: string | null;
  readonly cancel_reason: string | null;
}

const ACTIVE = "state IN ('queued', 'running')";
/** It is the row's turn: it is due, and its subject is neither busy nor due for something more urgent. Takes now, now. */
const BEGINNABLE = `state = 'queued' AND wake_at <= ? AND NOT EXISTS (
  SELECT 1 FROM operations AS other WHERE other.subject = operations.subject AND (other.state = 'running'
    OR (other.state = 'queued' AND other.priority < operations.priority AND other.wake_at <= ?)))`;

/** Operations in SQLite. */
export class OperationTable implements OperationStore {
  readonly leaseMs = undefined;
  readonly #db: Database;
  readonly #now: () => Date;
  /** What runs under a lease up to this one was begun by an earlier life of the adaptor. */
  readonly #lastLeaseBefore: number;
  readonly #changes = new EventEmitter<{ change: [OperationRecord] }>().setMaxListeners(0);

  constructor(db: Database, now: () => Date) {
    this.#db = db;
    this.#now = now;
    this.#lastLeaseBefore = this.#lastLease();
  }

  submit(operation: NewOperation): Promise<OperationRecord> {
    return this.#db.write(() => {
      const { id, kind, subject, input, priority } = operation;
      const active = this.#db.get<Row>(
        `SELECT * FROM operations WHERE (kind = ? AND subject = ? AND ${ACTIVE}) OR id = ?`,
        kind,
        subject,
        id,
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
      const now = this.#now().getTime();
      const claimed: OperationRecord[] = [];
      for (const [kind, room] of request.room) {
        // One kind after the other: what is begun here makes its subject busy for the next.
        const sql = `SELECT * FROM operations WHERE kind = ? AND ${BEGINNABLE} ORDER BY priority, wake_at LIMIT ?`;
        const due = this.#db.all<Row>(sql, kind, now, now, Math.max(0, room));
        for (const row of due) claimed.push(this.#begin(row.id));
      }
      return claimed;
    });
  }

  begin(id: OperationId): Promise<OperationRecord | undefined> {
    return this.#db.write(() => {
      const now = this.#now().getTime();
      const row = this.#db.get<Row>(
        `SELECT * FROM operations WHERE id = ? AND (state = 'running' OR ${BEGINNABLE})`,
        id,
        now,
        now,
      );
      return row === undefined ? undefined : this.#begin(row.id);
    });
  }

  async renew(held: readonly HeldLease[]): Promise<readonly OperationRecord[]> {
    const rows = held.map(({ id, lease }) =>
      this.#db.get<Row>("SELECT * FROM operations WHERE id = ? AND lease = ? AND state = 'running'", id, lease),
    );
    return rows.filter((row) => row !== undefined).map(fromRow);
  }

  async note({ id, lease }: HeldLease, progress: string): Promise<void> {
    await this.#db.write(() => {
      const sql = "UPDATE operations SET progress = ? WHERE id = ? AND lease = ? AND state = 'running'";
      if (this.#db.run(sql, progress, id, lease) === 0) throw takenOver(id);
    });
  }

  async settle(id: OperationId, lease: number, settlement: Settlement): Promise<OperationRecord> {
    const settled = await this.#db.write(() => {
      const again = settlement.state === "queued";
      const fault = "fault" in settlement && settlement.fault !== undefined ? JSON.stringify(settlement.fault) : null;
      const changes = this.#db.run(
        "UPDATE operations SET state = ?, wake_at = ?, attempt = attempt - ?, fault = ?, finished_at = ?, progress = NULL WHERE id = ? AND lease = ? AND state = 'running'",
        settlement.state,
        again ? settlement.wakeAt : 0,
        again && settlement.uncounted === true ? 1 : 0,
        fault,
        again ? null : this.#now().toISOString(),
        id,
        lease,
      );
      if (changes === 0) throw takenOver(id);
      return this.#known(id);
    });
    if (settled.finishedAt !== undefined || settled.fault !== undefined) this.#changes.emit("change", settled);
    return settled;
  }

  async cancelQueued(id: OperationId, reason: string): Promise<boolean> {
    const cancelled = await this.#db.write(() => {
      const at = this.#now().toISOString();
      const fault: RecordedFault = { code: "cancelled", message: reason, at };
      const sql =
        "UPDATE operations SET state = 'cancelled', finished_at = ?, fault = ? WHERE id = ? AND state = 'queued'";
      return this.#db.run(sql, at, JSON.stringify(fault), id) > 0 ? this.#known(id) : undefined;
    });
    return this.#tell(cancelled);
  }

  async requestCancel(id: OperationId, reason: string): Promise<boolean> {
    const asked = await this.#db.write(() => {
      const sql = "UPDATE operations SET cancel_reason = ? WHERE id = ? AND state = 'running'";
      return this.#db.run(sql, reason, id) > 0 ? this.#known(id) : undefined;
    });
    return this.#tell(asked);
  }

  requeueAbandoned(): Promise<number> {
    return this.#db.write(() => {
      const sql = "UPDATE operations SET state = 'queued', wake_at = ? WHERE state = 'running' AND lease <= ?";
      return this.#db.run(sql, this.#now().getTime(), this.#lastLeaseBefore);
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

  watch(listener: (operation: OperationRecord) => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  #tell(changed: OperationRecord | undefined): boolean {
    if (changed !== undefined) this.#changes.emit("change", changed);
    return changed !== undefined;
  }

  #begin(id: string): OperationRecord {
    this.#db.run("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = 'lease'");
    const sql =
      "UPDATE operations SET attempt = attempt + (state = 'queued'), state = 'running', lease = ?, progress = NULL WHERE id = ?";
    this.#db.run(sql, this.#lastLease(), id);
    return this.#known(id);
  }

  #known(id: string): OperationRecord {
    const row = this.#db.get<Row>("SELECT * FROM operations WHERE id = ?", id);
    if (row === undefined)
      throw new Fault("internal", `operation ${id} vanished inside of its transaction`, { operationId: id });
    return fromRow(row);
  }

  #lastLease(): number {
    return Number(this.#db.get<{ value: string }>("SELECT value FROM meta WHERE key = 'lease'")?.value);
  }
}

function takenOver(id: OperationId): Fault {
  return new Fault("aborted", `operation ${id} is not ours any more`, { operationId: id });
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
    ...(row.progress === null ? {} : { progress: row.progress }),
    ...(row.cancel_reason === null ? {} : { cancelReason: row.cancel_reason }),
    ...(row.fault === null ? {} : { fault: JSON.parse(row.fault) as RecordedFault }),
  };
}
