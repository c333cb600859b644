import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";
import type { Mark } from "./local-mark.ts";

/**
 * What takes the schema from version n to n + 1, n being the place in the list. Never changed once released. A version
 * that an adaptor of the version before can still work with says so by `compatible`: it only adds.
 */
const MIGRATIONS: readonly { readonly sql: string; readonly compatible: boolean }[] = [
  {
    compatible: false,
    sql: `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY, revision INTEGER NOT NULL, phase TEXT NOT NULL, node_id TEXT NOT NULL, body TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX sandboxes_by_phase ON sandboxes (phase);
  CREATE INDEX sandboxes_by_node ON sandboxes (node_id, phase);
  CREATE TABLE operations (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL, wake_at INTEGER NOT NULL, lease INTEGER NOT NULL, submitted_at TEXT NOT NULL,
    finished_at TEXT, input TEXT NOT NULL, fault TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX operations_active ON operations (kind, subject) WHERE state IN ('queued', 'running');
  CREATE INDEX operations_due ON operations (kind, priority, wake_at) WHERE state = 'queued';
  CREATE INDEX operations_by_subject ON operations (subject);
  CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;
  CREATE TABLE nodes (id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, seen_at TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  },
  {
    compatible: false,
    sql: `ALTER TABLE operations ADD COLUMN progress TEXT;
  ALTER TABLE operations ADD COLUMN cancel_reason TEXT;`,
  },
  {
    compatible: true,
    sql: "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;",
  },
];

/** How a file compares with what was seen of it before. */
export type Lineage = "known" | "new" | "older";

export interface Schema {
  /** What is to be remembered outside of the file from now on. */
  readonly mark: Mark;
  readonly lineage: Lineage;
}

/**
 * Brings a database up to this version's schema, all of it or nothing, and gives the store a new epoch when it is new, or
 * older than it was seen.
 * @throws Fault failed_precondition when a newer adaptor wrote it in a way that this one cannot work with
 */
export function prepareSchema(db: DatabaseSync, path: string, now: () => Date, seen: Mark): Schema {
  db.exec("BEGIN IMMEDIATE");
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  const meta = (key: string): string | undefined =>
    (db.prepare("SELECT value FROM meta WHERE key = ?").get(key) as { value: string } | undefined)?.value;
  const set = (key: string, value: string): void => {
    db.prepare("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value").run(key, value);
  };
  if (version > MIGRATIONS.length && Number(meta("readable_from") ?? version) > MIGRATIONS.length) {
    throw new Fault(
      "failed_precondition",
      `${path} was written by a newer adaptor (schema ${version}, this one knows ${MIGRATIONS.length})`,
    );
  }
  for (const { sql } of MIGRATIONS.slice(version)) db.exec(sql);
  if (version < MIGRATIONS.length) {
    db.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
    // The oldest version that can still work with it.
    set("readable_from", String(MIGRATIONS.findLastIndex(({ compatible }) => !compatible) + 1));
  }
  const lineage = version === 0 ? "new" : lineageOf(meta, seen);
  if (lineage !== "known") {
    startEpoch(set, now());
    // Leases from before must stay lower than those that follow, though their counter is lost: it goes on from the time.
    if (meta("lease") === undefined) set("lease", seen.epoch === "" ? "0" : String(now().getTime()));
    else set("lease", String(Math.max(Number(meta("lease")), now().getTime())));
  }
  db.exec("COMMIT");
  const mark: Mark = {
    epoch: meta("epoch") ?? "",
    epochCreatedAt: meta("epoch_created_at") ?? "",
    seq: Number(meta("seq") ?? 0),
  };
  return { mark, lineage };
}

function startEpoch(set: (key: string, value: string) => void, now: Date): void {
  set("epoch", randomUUID());
  set("epoch_created_at", now.toISOString());
}

function lineageOf(meta: (key: string) => string | undefined, seen: Mark): Lineage {
  if (seen.epoch === "") return "known"; // nothing is remembered: there is nothing to compare with
  if (meta("epoch") === seen.epoch) return Number(meta("seq") ?? 0) < seen.seq ? "older" : "known";
  return (meta("epoch_created_at") ?? "") < seen.epochCreatedAt ? "older" : "known";
}
