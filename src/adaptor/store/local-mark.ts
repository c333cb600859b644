import { randomUUID } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { Fault } from "../../base/fault.ts";

/** What an adaptor has seen of the shared store. */
export interface Mark {
  readonly epoch: string;
  /** RFC 3339 */
  readonly epochCreatedAt: string;
  /** The highest number of a change. */
  readonly seq: number;
}

const NOTHING: Mark = { epoch: "", epochCreatedAt: "", seq: 0 };
const WRITE_MS = 1000;

/**
 * What an adaptor remembers by itself beside the store, in a file that it keeps locked: its name as a holder of leases,
 * so that its next life knows its own, and how far it has seen the store, so that a store that was set back is noticed.
 * The mark is written behind, at most a second late.
 */
export class LocalMark implements Disposable {
  readonly holder: string;
  readonly #db: DatabaseSync;
  #mark: Mark;
  #timer: NodeJS.Timeout | undefined;

  private constructor(db: DatabaseSync) {
    this.#db = db;
    const value = (key: string): string | undefined =>
      (db.prepare("SELECT value FROM mark WHERE key = ?").get(key) as { value: string } | undefined)?.value;
    this.holder = value("holder") ?? randomUUID();
    this.#mark = JSON.parse(value("mark") ?? JSON.stringify(NOTHING)) as Mark;
    this.#write("holder", this.holder);
  }

  /** @throws Fault failed_precondition when another adaptor has it open */
  static open(path: string): LocalMark {
    const db = new DatabaseSync(path, { timeout: 200 });
    try {
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = NORMAL");
      db.exec("CREATE TABLE IF NOT EXISTS mark (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT");
      return new LocalMark(db);
    } catch (cause) {
      db.close();
      const busy = (cause as { errcode?: number }).errcode === 5; // SQLITE_BUSY
      const message = busy
        ? `${path} is in use: another adaptor runs with this stateDir`
        : `${path} cannot be opened: remove it if it is damaged`;
      throw new Fault("failed_precondition", message, {}, { cause });
    }
  }

  get seen(): Mark {
    return this.#mark;
  }

  /** Notes what was seen. A lower number of the same epoch changes nothing: answers may overtake each other. */
  see(mark: Mark): void {
    if (mark.epoch === this.#mark.epoch && mark.seq <= this.#mark.seq) return;
    this.#mark = mark;
    this.#timer ??= setTimeout(() => this.#save(), WRITE_MS).unref();
  }

  /** A new epoch was begun: whatever its number is, it counts from here. Written at once. */
  begin(mark: Mark): void {
    this.#mark = mark;
    this.#save();
  }

  [Symbol.dispose](): void {
    this.#save();
    this.#db.close();
  }

  #save(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#write("mark", JSON.stringify(this.#mark));
  }

  #write(key: string, value: string): void {
    const sql = "INSERT INTO mark VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    this.#db.prepare(sql).run(key, value);
  }
}
