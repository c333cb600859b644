import { readdir, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mkdirPrivate } from "../../base/files.ts";
import { taskKey } from "../sandbox/index.ts";

const MARK = "task";

interface TaskName {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
}

/**
 * `<run dir>/tasks/<key>/task`, as long as a task exists. containerd 1.6 runs the launcher's `delete` after every task,
 * however it ended: without this directory there is nothing to clean up and no Node is booted to find that out.
 */
export class TaskMarks {
  readonly #dir: string;

  constructor(runDir: string) {
    this.#dir = join(runDir, "tasks");
  }

  async add(task: TaskName): Promise<void> {
    const dir = this.#path(task);
    await mkdirPrivate(dir);
    await writeFile(join(dir, MARK), "", { mode: 0o600 });
  }

  async remove(task: TaskName): Promise<void> {
    await removeMark(this.#path(task));
  }

  /** No task of an earlier daemon lives on. */
  async clear(): Promise<void> {
    await mkdirPrivate(this.#dir);
    for (const key of await readdir(this.#dir)) await removeMark(join(this.#dir, key));
  }

  #path({ address, namespace, id }: TaskName): string {
    return join(this.#dir, taskKey(address, namespace, id));
  }
}

async function removeMark(dir: string): Promise<void> {
  await rm(join(dir, MARK), { force: true });
  // The state file of a VM that still goes away keeps the directory.
  await rmdir(dir).catch(() => undefined);
}
