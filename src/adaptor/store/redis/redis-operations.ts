import { EventEmitter } from "node:events";
import { Fault } from "../../../base/fault.ts";
import type { OperationId } from "../../../base/ids.ts";
import type { HeldLease, NewOperation, OperationRecord, Settlement } from "../operation-record.ts";
import type { RecordedFault } from "../sandbox-record.ts";
import type { ClaimRequest, OperationFilter, OperationStore } from "../store.ts";
import type { RedisDatabase, Reply } from "./redis-database.ts";

/** As the store's script keeps it: times and numbers plain, input and fault as JSON texts. */
type Row = Omit<OperationRecord, "input" | "fault"> & {
  readonly input: string;
  readonly fault?: string;
  readonly holder?: string;
};

const ACTIVE: ReadonlySet<string> = new Set(["queued", "running"]);

/** Operations in Redis, shared by adaptors: a lease that is not renewed ends. */
export class RedisOperations implements OperationStore {
  readonly leaseMs: number;
  readonly #db: RedisDatabase;
  readonly #now: () => Date;
  readonly #changes = new EventEmitter<{ change: [OperationRecord] }>().setMaxListeners(0);

  constructor(db: RedisDatabase, leaseMs: number, now: () => Date) {
    this.#db = db;
    this.leaseMs = leaseMs;
    this.#now = now;
  }

  async submit({ id, kind, subject, priority, input }: NewOperation): Promise<OperationRecord> {
    return parseOperation(await this.#db.run("submit", id, kind, subject, priority, JSON.stringify(input)));
  }

  async get(id: OperationId): Promise<OperationRecord | undefined> {
    return parse(await this.#db.run("operation", id));
  }

  async list(filter: OperationFilter = {}): Promise<readonly OperationRecord[]> {
    const { states, subject, kind, limit } = filter;
    const selective = states !== undefined || kind !== undefined;
    const found =
      subject !== undefined
        ? await this.#db.run("operations", "subject", subject, 0)
        : states?.every((state) => ACTIVE.has(state)) === true
          ? await this.#db.run("operations", "active", "", 0)
          : await this.#db.run("operations", "all", "", selective ? 0 : (limit ?? 0));
    return parseAll(found)
      .filter((o) => states === undefined || states.includes(o.state))
      .filter((o) => kind === undefined || o.kind === kind)
      .sort((a, b) => (a.submittedAt < b.submittedAt ? 1 : a.submittedAt > b.submittedAt ? -1 : 0))
      .slice(0, limit);
  }

  async claim(request: ClaimRequest): Promise<readonly OperationRecord[]> {
    const now = this.#now().getTime();
    const queued = (await this.list({ states: ["queued"] })).filter((o) => o.wakeAt <= now);
    const best = queued.sort((a, b) => a.priority - b.priority || a.wakeAt - b.wakeAt);
    // Kind after kind, so that what is begun of one makes its subject busy for the next. What is begun at another place
    // meanwhile, or has a busy subject, is refused there.
    const claimed: OperationRecord[] = [];
    for (const [kind, room] of request.room) {
      for (const { id } of best.filter((o) => o.kind === kind)) {
        if (claimed.filter((o) => o.kind === kind).length >= room) break;
        const begun = await this.begin(id);
        if (begun !== undefined) claimed.push(begun);
      }
    }
    return claimed;
  }

  async begin(id: OperationId): Promise<OperationRecord | undefined> {
    return parse(await this.#db.run("begin", id));
  }

  async renew(held: readonly HeldLease[]): Promise<readonly OperationRecord[]> {
    const replies = await Promise.all(held.map(({ id, lease }) => this.#db.run("renew", id, lease)));
    return replies.map(parse).filter((operation) => operation !== undefined);
  }

  async note({ id, lease }: HeldLease, progress: string): Promise<void> {
    if ((await this.#db.run("note", id, lease, progress)) === 0) throw takenOver(id);
  }

  async settle(id: OperationId, lease: number, settlement: Settlement): Promise<OperationRecord> {
    const again = settlement.state === "queued";
    const fault = "fault" in settlement && settlement.fault !== undefined ? JSON.stringify(settlement.fault) : "";
    const wakeAt = again ? settlement.wakeAt : 0;
    const uncounted = again && settlement.uncounted === true ? 1 : 0;
    const settled = parse(await this.#db.run("settle", id, lease, settlement.state, wakeAt, uncounted, fault));
    if (settled === undefined) throw takenOver(id);
    if (settled.finishedAt !== undefined || settled.fault !== undefined) this.tell(settled);
    return settled;
  }

  async cancelQueued(id: OperationId, reason: string): Promise<boolean> {
    const fault: RecordedFault = { code: "cancelled", message: reason, at: this.#now().toISOString() };
    return (await this.#db.run("cancelQueued", id, JSON.stringify(fault))) === 1 && this.#tellById(id);
  }

  async requestCancel(id: OperationId, reason: string): Promise<boolean> {
    return (await this.#db.run("requestCancel", id, reason)) === 1 && this.#tellById(id);
  }

  async requeueAbandoned(): Promise<number> {
    return Number(await this.#db.run("requeueAbandoned", this.#db.leaseAtOpen));
  }

  async nextWake(kinds: readonly string[]): Promise<number | undefined> {
    const queued = (await this.list({ states: ["queued"] })).filter((o) => kinds.includes(o.kind));
    return queued.length === 0 ? undefined : Math.min(...queued.map((o) => o.wakeAt));
  }

  async prune(before: Date): Promise<number> {
    for (let all = 0; ; ) {
      const some = Number(await this.#db.run("prune", before.getTime()));
      all += some;
      if (some === 0) return all;
    }
  }

  watch(listener: (operation: OperationRecord) => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  tell(operation: OperationRecord): void {
    this.#changes.emit("change", operation);
  }

  /** Tells of everything that may have been missed, apart from what is over: who waits for an end looks now and then. */
  async catchUp(): Promise<void> {
    for (const operation of await this.list({ states: ["queued", "running"] })) {
      if (operation.fault !== undefined || operation.cancelReason !== undefined) this.tell(operation);
    }
  }

  async #tellById(id: OperationId): Promise<true> {
    const operation = await this.get(id);
    if (operation !== undefined) this.tell(operation);
    return true;
  }
}

function takenOver(id: OperationId): Fault {
  return new Fault("aborted", `operation ${id} is not ours any more`, { operationId: id });
}

export function parseOperation(body: unknown): OperationRecord {
  const { holder, fault, input, ...row } = JSON.parse(String(body)) as Row;
  return {
    ...row,
    input: JSON.parse(input) as OperationRecord["input"],
    ...(fault === undefined ? {} : { fault: JSON.parse(fault) as RecordedFault }),
  };
}

function parse(reply: Reply): OperationRecord | undefined {
  return reply === "" ? undefined : parseOperation(reply);
}

function parseAll(reply: Reply): OperationRecord[] {
  return Array.isArray(reply) ? (reply as string[]).map(parseOperation) : [];
}
