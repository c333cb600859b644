import { EventEmitter } from "node:events";
import { Fault } from "../../../base/fault.ts";
import type { SandboxId } from "../../../base/ids.ts";
import { changed, inserted } from "../changed-record.ts";
import { PHASES } from "../phase-table.ts";
import { readRecord } from "../record-version.ts";
import type { Phase, SandboxChange, SandboxRecord } from "../sandbox-record.ts";
import type { SandboxFilter, SandboxStore } from "../store.ts";
import type { RedisDatabase, Reply } from "./redis-database.ts";

/** Records of one part of a scan: reading them takes about a millisecond. */
const PART = 100;

/** Sandbox records in Redis. Watchers hear of changes that any adaptor makes. */
export class RedisSandboxes implements SandboxStore {
  readonly #db: RedisDatabase;
  readonly #now: () => Date;
  readonly #changes = new EventEmitter<{ change: [SandboxRecord] }>().setMaxListeners(0);
  /** The newest revision of each that was told: own changes are told at once, and come again in the stream. */
  readonly #told = new Map<SandboxId, number>();

  constructor(db: RedisDatabase, now: () => Date) {
    this.#db = db;
    this.#now = now;
  }

  async insert(record: Omit<SandboxRecord, "revision" | "phaseSince">): Promise<SandboxRecord> {
    const full = inserted(record, this.#now());
    const { id, phase, nodeId } = full;
    if ((await this.#db.run("insert", id, phase, nodeId, JSON.stringify(full))) === 0) {
      throw new Fault("already_exists", `sandbox ${id} has a record already`, { sandboxId: id });
    }
    return this.tell(full);
  }

  async get(id: SandboxId): Promise<SandboxRecord | undefined> {
    const body = await this.#db.run("sandbox", id);
    return body === "" ? undefined : readRecord(String(body));
  }

  async update(current: SandboxRecord, change: SandboxChange): Promise<SandboxRecord> {
    const next = changed(current, change, this.#now());
    const { id, revision, phase, nodeId } = next;
    const body = JSON.stringify(next);
    if ((await this.#db.run("update", id, current.revision, revision, phase, nodeId, body)) === 0) {
      throw changedMeanwhile(id);
    }
    return this.tell(JSON.parse(body) as SandboxRecord);
  }

  async remove(current: SandboxRecord): Promise<void> {
    if ((await this.#db.run("remove", current.id, current.revision)) === 0) throw changedMeanwhile(current.id);
  }

  async list(filter: SandboxFilter = {}): Promise<readonly SandboxRecord[]> {
    const { phases, nodeId } = filter;
    if (phases?.length === 0) return [];
    if (nodeId === undefined) return records(await this.#db.run("sandboxes", ...(phases ?? [])));
    const all = records(await this.#db.run("ofNode", nodeId));
    return phases === undefined ? all : all.filter((r) => phases.includes(r.phase));
  }

  async *scan(phases: readonly Phase[] = PHASES): AsyncIterable<readonly SandboxRecord[]> {
    for (const phase of PHASES.filter((p) => phases.includes(p))) {
      for (let after = ""; ; ) {
        const part = records(await this.#db.run("scan", phase, after, PART));
        if (part.length > 0) yield part;
        if (part.length < PART) break;
        after = part.at(-1)?.id ?? after;
      }
    }
  }

  async count(phases: readonly Phase[]): Promise<number> {
    return Number(await this.#db.run("count", ...phases));
  }

  watch(listener: (record: SandboxRecord) => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  /** Tells watchers of a record, unless they have heard of it or of a newer one. */
  tell(record: SandboxRecord): SandboxRecord {
    if ((this.#told.get(record.id) ?? 0) >= record.revision) return record;
    this.#told.set(record.id, record.revision);
    this.#changes.emit("change", record);
    return record;
  }

  forget(id: SandboxId): void {
    this.#told.delete(id);
  }

  /** Tells of everything that may have been missed. */
  async catchUp(): Promise<void> {
    const all = await this.list();
    const there = new Set(all.map((r) => r.id));
    for (const id of this.#told.keys()) if (!there.has(id)) this.#told.delete(id);
    for (const record of all) this.tell(record);
  }
}

function records(reply: Reply): SandboxRecord[] {
  return Array.isArray(reply) ? (reply as string[]).map(readRecord) : [];
}

function changedMeanwhile(id: SandboxId): Fault {
  return new Fault("aborted", `the record of sandbox ${id} was changed meanwhile`, { sandboxId: id });
}
