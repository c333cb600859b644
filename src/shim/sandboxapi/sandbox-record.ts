import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { Mutex } from "../../base/mutex.ts";
import { taskKey } from "../sandbox/index.ts";

const closed = { additionalProperties: false } as const;

/** One pod of the Sandbox API, as the next daemon needs it. */
export const SandboxRecord = Type.Object(
  {
    version: Type.Literal(1),
    address: Type.String(),
    namespace: Type.String(),
    id: Type.String(),
    bundle: Type.String(),
    /** TaskRequest.key of its CreateSandbox. */
    createKey: Type.String(),
    /** Of its StartSandbox; absent before. */
    startKey: Type.Optional(Type.String()),
    /** What containerd was told. */
    pid: Type.Integer(),
    /** Of its VM; absent before it was asked for. */
    sandboxId: Type.Optional(Type.String()),
    createdAtMs: Type.Integer(),
    /** CreateSandboxRequest in protobuf, base64. */
    request: Type.String(),
    /** The runtime's options, google.protobuf.Any in protobuf, base64; absent: it has none. */
    runtimeOptions: Type.Optional(Type.String()),
    exit: Type.Optional(Type.Object({ status: Type.Integer(), atMs: Type.Integer() }, closed)),
  },
  closed,
);
export type SandboxRecord = Static<typeof SandboxRecord>;

const FILE = "sandbox";

/** `<run dir>/tasks/<key>/sandbox`, from CreateSandbox to ShutdownSandbox. */
export class SandboxRecords {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #turn = new Mutex();
  #frozen = false;

  constructor(deps: { readonly runDir: string; readonly log: Logger }) {
    this.#dir = join(deps.runDir, "tasks");
    this.#log = deps.log;
  }

  async write(record: SandboxRecord): Promise<void> {
    await this.#inTurn(async () => {
      const dir = join(this.#dir, taskKey(record.address, record.namespace, record.id));
      await mkdirPrivate(dir);
      await replaceFile(join(dir, FILE), JSON.stringify(record));
    });
  }

  async remove({ address, namespace, id }: Pick<SandboxRecord, "address" | "namespace" | "id">): Promise<void> {
    await this.#inTurn(async () => {
      const dir = join(this.#dir, taskKey(address, namespace, id));
      await rm(join(dir, FILE), { force: true });
      await rmdir(dir).catch(() => undefined); // the state file of a VM that still goes away keeps it
    });
  }

  /** Every pod that an earlier daemon wrote down. What cannot be read is of a pod that is lost, and goes. */
  async list(): Promise<readonly SandboxRecord[]> {
    await mkdirPrivate(this.#dir);
    const records: SandboxRecord[] = [];
    for (const key of await readdir(this.#dir)) {
      const path = join(this.#dir, key, FILE);
      try {
        const text = await readIfThere(path);
        if (text !== undefined) records.push(parseConfig(SandboxRecord, JSON.parse(text), path));
      } catch (err) {
        this.#log.error({ path, err }, "record of a pod is not readable, the pod is lost");
        await rm(path, { force: true });
      }
    }
    return records;
  }

  /** Nothing is written from here on, and whoever wanted to waits for ever: the next daemon goes on from what there is. */
  freeze(): void {
    this.#frozen = true;
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    await this.#turn.run(async () => {
      if (this.#frozen) await new Promise(() => undefined);
      await work();
    });
  }
}
