import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import type { Exit } from "../sandbox/index.ts";

const Deleted = Type.Object(
  { pid: Type.Integer(), status: Type.Integer(), atMs: Type.Integer() },
  { additionalProperties: false },
);

interface Answer {
  readonly pid: number;
  readonly exit: Exit;
}

/** How many answers are kept, at least; older ones have reached containerd long ago. */
const KEPT = 64;
/** Source: UUIDs, as the relay makes them. */
const KEY = /^[0-9A-Za-z-]{1,64}$/;

/**
 * Answers of Delete calls, `<run dir>/deleted/<request key>`: nothing else is left of a deleted task, and a Delete whose
 * daemon died before its answer was delivered comes again.
 */
export class DeletedTasks {
  readonly #dir: string;
  readonly #recent: string[] = [];

  constructor(runDir: string) {
    this.#dir = join(runDir, "deleted");
  }

  /** Forgets all that will not be asked for. @param expected keys of Task calls that will come again */
  async restore(expected: ReadonlySet<string>): Promise<void> {
    await mkdirPrivate(this.#dir);
    for (const name of await readdir(this.#dir)) {
      if (expected.has(name)) this.#recent.push(name);
      else await rm(join(this.#dir, name), { force: true });
    }
  }

  async add(key: string | undefined, { pid, exit }: Answer): Promise<void> {
    if (key === undefined || !KEY.test(key)) return;
    await mkdirPrivate(this.#dir);
    await replaceFile(join(this.#dir, key), JSON.stringify({ pid, status: exit.status, atMs: exit.at.getTime() }));
    this.#recent.push(key);
    while (this.#recent.length > KEPT) await rm(join(this.#dir, this.#recent.shift() as string), { force: true });
  }

  async find(key: string | undefined): Promise<Answer | undefined> {
    if (key === undefined || !this.#recent.includes(key)) return undefined;
    const path = join(this.#dir, key);
    const text = await readIfThere(path);
    if (text === undefined) return undefined;
    const { pid, status, atMs } = parseConfig(Deleted, JSON.parse(text), path);
    return { pid, exit: { status, at: new Date(atMs) } };
  }
}
