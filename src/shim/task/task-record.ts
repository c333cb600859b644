import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { Mutex } from "../../base/mutex.ts";
import { ContainerRecord, taskKey } from "../sandbox/index.ts";

const closed = { additionalProperties: false } as const;

/** One task, as the next daemon needs it. */
export const TaskRecord = Type.Object(
  {
    version: Type.Literal(1),
    address: Type.String(),
    namespace: Type.String(),
    id: Type.String(),
    bundle: Type.String(),
    /** TaskRequest.key of its Create. */
    createKey: Type.String(),
    /** Path of containerd's event socket. */
    sink: Type.String(),
    /** What containerd was told. */
    pid: Type.Integer(),
    sandboxId: Type.String(),
    /** Absent while it is being created. */
    container: Type.Optional(ContainerRecord),
  },
  closed,
);
export type TaskRecord = Static<typeof TaskRecord>;

const FILE = "task";

export interface TaskName {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
}

/**
 * `<run dir>/tasks/<key>/task`, as long as a task exists. containerd 1.6 runs the launcher's `delete` after every task,
 * however it ended: without this directory there is nothing to clean up and no Node is booted to find that out.
 */
export class TaskRecords {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #turns = new Map<string, Mutex>();
  #frozen = false;

  constructor(deps: { readonly runDir: string; readonly log: Logger }) {
    this.#dir = join(deps.runDir, "tasks");
    this.#log = deps.log;
  }

  /** @param snapshot asked when it is this one's turn, so that the newest state is written last */
  async write(task: TaskName, snapshot: () => TaskRecord | undefined): Promise<void> {
    const dir = this.#path(task);
    await this.#inTurn(dir, async () => {
      const record = snapshot();
      if (record === undefined) return;
      await mkdirPrivate(dir);
      await replaceFile(join(dir, FILE), JSON.stringify(record));
    });
  }

  async remove(task: TaskName): Promise<void> {
    const dir = this.#path(task);
    await this.#inTurn(dir, async () => {
      await rm(join(dir, FILE), { force: true });
      // The state file of a VM that still goes away keeps the directory.
      await rmdir(dir).catch(() => undefined);
    });
    this.#turns.delete(dir);
  }

  /** Every task that an earlier daemon wrote down. What cannot be read is of a task that is lost, and goes. */
  async list(): Promise<readonly TaskRecord[]> {
    await mkdirPrivate(this.#dir);
    const records: TaskRecord[] = [];
    for (const key of await readdir(this.#dir)) {
      const path = join(this.#dir, key, FILE);
      try {
        const text = await readIfThere(path);
        if (text !== undefined) records.push(parseConfig(TaskRecord, JSON.parse(text), path));
      } catch (err) {
        this.#log.error({ path, err }, "record of a task is not readable, the task is lost");
        await rm(path, { force: true });
        await rmdir(join(this.#dir, key)).catch(() => undefined); // a VM's state file may be there
      }
    }
    return records;
  }

  /** Nothing is written from here on, and whoever wanted to waits for ever: the next daemon goes on from what there is. */
  freeze(): void {
    this.#frozen = true;
  }

  async #inTurn(dir: string, work: () => Promise<void>): Promise<void> {
    let turn = this.#turns.get(dir);
    if (turn === undefined) {
      turn = new Mutex();
      this.#turns.set(dir, turn);
    }
    await turn.run(async () => {
      if (this.#frozen) await new Promise(() => undefined);
      await work();
    });
  }

  #path({ address, namespace, id }: TaskName): string {
    return join(this.#dir, taskKey(address, namespace, id));
  }
}
