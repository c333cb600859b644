import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import type { Static, TObject } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { KeyedMutex } from "../../base/mutex.ts";
import { taskKey } from "../sandbox/index.ts";

/** Whose record it is. */
export interface TaskName {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
}

export interface RecordFilesDeps {
  readonly runDir: string;
  readonly log: Logger;
}

/** Records that the next daemon goes on from, `<run dir>/tasks/<key>/<file>`. */
export class RecordFiles<S extends TObject> {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #kind: { readonly schema: S; readonly file: string; readonly of: string };
  readonly #turns = new KeyedMutex();
  #frozen = false;

  /** @param kind `of`: what a record is of, for the log */
  constructor(deps: RecordFilesDeps, kind: { readonly schema: S; readonly file: string; readonly of: string }) {
    this.#dir = join(deps.runDir, "tasks");
    this.#log = deps.log;
    this.#kind = kind;
  }

  /** @param snapshot asked when it is this one's turn, so that the newest state is written last */
  async write(name: TaskName, snapshot: () => Static<S> | undefined): Promise<void> {
    await this.#inTurn(name, async (dir) => {
      const record = snapshot();
      if (record === undefined) return;
      await mkdirPrivate(dir);
      await replaceFile(join(dir, this.#kind.file), JSON.stringify(record));
    });
  }

  async remove(name: TaskName): Promise<void> {
    await this.#inTurn(name, (dir) => this.#drop(dir));
  }

  /** All that an earlier daemon wrote down. What cannot be read is lost, and goes. */
  async list(): Promise<readonly Static<S>[]> {
    const { schema, file, of } = this.#kind;
    await mkdirPrivate(this.#dir);
    const records: Static<S>[] = [];
    for (const key of await readdir(this.#dir)) {
      const path = join(this.#dir, key, file);
      try {
        const text = await readIfThere(path);
        if (text !== undefined) records.push(parseConfig(schema, JSON.parse(text), path));
      } catch (err) {
        this.#log.error({ path, err }, `record of a ${of} is not readable, the ${of} is lost`);
        await this.#drop(join(this.#dir, key));
      }
    }
    return records;
  }

  /** Nothing is written from here on, and whoever wanted to waits for ever: the next daemon goes on from what there is. */
  freeze(): void {
    this.#frozen = true;
  }

  async #drop(dir: string): Promise<void> {
    await rm(join(dir, this.#kind.file), { force: true });
    // The state file of a VM that still goes away keeps the directory.
    await rmdir(dir).catch(() => undefined);
  }

  async #inTurn({ address, namespace, id }: TaskName, work: (dir: string) => Promise<void>): Promise<void> {
    const dir = join(this.#dir, taskKey(address, namespace, id));
    await this.#turns.run(dir, async () => {
      if (this.#frozen) await new Promise(() => undefined);
      await work(dir);
    });
  }
}
