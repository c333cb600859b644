import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import { type Exit, taskKey } from "../sandbox/index.ts";
import type { TaskName } from "./record-files.ts";
import type { TaskRecord } from "./task-record.ts";

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
 * daemon died before its answer was delivered comes again. It may also have died before the answer was written, when the
 * pod was already being stopped: the ends of such tasks are kept in memory, by name.
 */
export class DeletedTasks {
  readonly #dir: string;
  readonly #recent: string[] = [];
  /** Tasks that ended with an earlier daemon and were not deleted, by task key. */
  readonly #ended = new Map<string, Answer>();

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

  /** @param gone the task, when there is none of that name any more */
  async find(key: string | undefined, gone?: TaskName): Promise<Answer | undefined> {
    const answer = await this.#read(key);
    if (answer !== undefined || gone === undefined) return answer;
    const ended = this.#ended.get(keyOf(gone));
    if (ended === undefined) return undefined;
    await this.add(key, ended);
    this.forgetEnded(gone); // from here on it is deleted
    return ended;
  }

  /** A task of which nothing lives on: a Delete that its daemon had begun, or that is still to come, is told how it ended. */
  noteEnded({ pid, container, ...name }: TaskRecord): void {
    const exit = container?.init.exit;
    if (exit === undefined) return;
    this.#ended.set(keyOf(name), { pid, exit: { status: exit.status, at: new Date(exit.atMs) } });
    const [oldest] = this.#ended.keys();
    if (this.#ended.size > KEPT && oldest !== undefined) this.#ended.delete(oldest);
  }

  /** Its name is another task's now. */
  forgetEnded(name: TaskName): void {
    this.#ended.delete(keyOf(name));
  }

  async #read(key: string | undefined): Promise<Answer | undefined> {
    if (key === undefined || !this.#recent.includes(key)) return undefined;
    const path = join(this.#dir, key);
    const text = await readIfThere(path);
    if (text === undefined) return undefined;
    const { pid, status, atMs } = parseConfig(Deleted, JSON.parse(text), path);
    return { pid, exit: { status, at: new Date(atMs) } };
  }
}

function keyOf({ address, namespace, id }: TaskName): string {
  return taskKey(address, namespace, id);
}
