import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, removeTemporaries, writeFileAtomic } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";

/** What must outlive the daemon of one pod of a stock shim: written before its VM is asked for. */
export const StockState = Type.Object(
  {
    version: Type.Literal(1),
    /** The shim's. */
    id: Type.String(),
    sandboxId: Type.String(),
    hypervisor: Type.String(),
    guest: Type.Union([Type.Literal("stock"), Type.Literal("reference")]),
    pod: Type.Object({ namespace: Type.String(), name: Type.String() }),
    socketPath: Type.String(),
    netnsPath: Type.Optional(Type.String()),
    /** Of its tunnel, when the guest was told them. */
    vnis: Type.Optional(Type.Array(Type.Integer())),
    /** The tunnel goes to the VM's second address. */
    dedicated: Type.Boolean(),
    /** Once it runs. */
    address: Type.Optional(
      Type.Object({ instanceId: Type.String(), addresses: Type.Array(Type.String()), port: Type.Integer() }),
    ),
    createdAt: Type.String(),
  },
  { additionalProperties: false },
);
export type StockState = Static<typeof StockState>;

const SUFFIX = ".json";

/** One file per pod, 0600. The shim's id is its name: it was checked to be no path. */
export class StockStates {
  readonly #dir: string;
  readonly #log: Logger;

  constructor(dir: string, log: Logger) {
    this.#dir = dir;
    this.#log = log;
  }

  async write(state: StockState): Promise<void> {
    await mkdirPrivate(this.#dir);
    await writeFileAtomic(this.#path(state.id), `${JSON.stringify(state, undefined, 2)}\n`);
  }

  async remove(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
  }

  /** What an earlier daemon left. A file that cannot be read stays: its VM, if any, must be removed by hand. */
  async list(): Promise<readonly StockState[]> {
    await mkdirPrivate(this.#dir);
    await removeTemporaries(this.#dir);
    const states: StockState[] = [];
    for (const name of await readdir(this.#dir)) {
      if (!name.endsWith(SUFFIX)) continue; // not ours
      const path = join(this.#dir, name);
      try {
        states.push(parseConfig(StockState, JSON.parse((await readIfThere(path)) ?? ""), path));
      } catch (err) {
        this.#log.error({ path, err }, "state file is not readable; its VM, if any, must be removed by hand");
      }
    }
    return states;
  }

  #path(id: string): string {
    return join(this.#dir, `${id}${SUFFIX}`);
  }
}
