import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";
import type { Epoch } from "./store.ts";

/** What takes the schema from version n to n + 1, n being the place in the list. Never changed once released. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
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
  `ALTER TABLE operations ADD COLUMN progress TEXT;
  ALTER TABLE operations ADD COLUMN cancel_reason TEXT;`,
];

/**
 * Brings a database up to this version's schema, all of it or nothing, and gives the store its epoch when it is new.
 * @throws Fault failed_precondition when a newer adaptor wrote it
 */
export function prepareSchema(db: DatabaseSync, path: string, now: () => Date): Epoch {
  db.exec("BEGIN IMMEDIATE");
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version > MIGRATIONS.length) {
    throw new Fault(
      "failed_precondition",
      `${path} was written by a newer adaptor (schema ${version}, this one knows ${MIGRATIONS.length})`,
    );
  }
  for (const migration of MIGRATIONS.slice(version)) db.exec(migration);
  if (version === 0) {
    const insert = db.prepare("INSERT INTO meta VALUES (?, ?)");
    insert.run("epoch", randomUUID());
    insert.run("epoch_created_at", now().toISOString());
    insert.run("lease", "0");
  }
  if (version < MIGRATIONS.length) db.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
  db.exec("COMMIT");
  const meta = (key: string): string =>
    (db.prepare("SELECT value FROM meta WHERE key = ?").get(key) as { value: string }).value;
  return { id: meta("epoch"), createdAt: new Date(meta("epoch_created_at")) };
}
