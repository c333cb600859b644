import { createHash } from "node:crypto";
import { readdir, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { mkdirPrivate, readIfThere, removeTemporaries, writeFileAtomic } from "../../base/files.ts";

const closed = { additionalProperties: false } as const;

/** What is known of a pod's VM once its agent answers: with it the next daemon goes on. */
export const RunningState = Type.Object(
  {
    pod: Type.Object({ namespace: Type.String(), name: Type.String(), uid: Type.String() }, closed),
    instanceId: Type.String(),
    supportsSeccomp: Type.Boolean(),
    /** Absent in records of earlier versions. */
    packsFiles: Type.Optional(Type.Boolean()),
    timings: Type.Array(Type.Object({ stage: Type.String(), ms: Type.Number() }, closed)),
  },
  closed,
);
export type RunningState = Static<typeof RunningState>;

/** What must outlive the daemon to take a pod's VM down: written before the VM is asked for. */
export const SandboxState = Type.Object(
  {
    version: Type.Literal(1),
    sandboxId: Type.String(),
    /** containerd's -address, namespace and id of the sandbox container. */
    address: Type.String(),
    namespace: Type.String(),
    id: Type.String(),
    bundle: Type.String(),
    hypervisor: Type.String(),
    /** The pod's network namespace on this node, when its network is carried into the VM. */
    netnsPath: Type.Optional(Type.String()),
    /** "api_sandbox": asked for by the Sandbox API, it has no container of its own. */
    kind: Type.Union([Type.Literal("pod_sandbox"), Type.Literal("single_container"), Type.Literal("api_sandbox")]),
    /** Life of the daemon that made it; another one's are leftovers. */
    daemonGeneration: Type.String(),
    createdAt: Type.String(),
    /** Absent until the agent has answered. */
    running: Type.Optional(RunningState),
  },
  closed,
);
export type SandboxState = Static<typeof SandboxState>;

export type RunningSandboxState = SandboxState & { readonly running: RunningState };

/** First 32 hex digits of sha256(address NUL namespace NUL id): names a task's directory. */
export function taskKey(address: string, namespace: string, id: string): string {
  return createHash("sha256").update(`${address}\0${namespace}\0${id}`).digest("hex").slice(0, 32);
}

/** `<run dir>/tasks/<key>/<sandbox id>.json`, mode 0600, one per pod life: an id may be used again before its old VM is gone. */
export class SandboxStateStore {
  readonly #dir: string;

  constructor(runDir: string) {
    this.#dir = join(runDir, "tasks");
  }

  async write(state: SandboxState): Promise<void> {
    const path = this.#path(state);
    await mkdirPrivate(dirname(path));
    await writeFileAtomic(path, `${JSON.stringify(state, undefined, 2)}\n`);
  }

  /** Every life that one containerd id had and whose VM is not known to be gone. */
  async read(address: string, namespace: string, id: string): Promise<StateList> {
    return await this.#readDir(taskKey(address, namespace, id));
  }

  async remove(state: SandboxState): Promise<void> {
    const path = this.#path(state);
    await rm(path, { force: true });
    // Fails while another life has a file there, which is meant to stay.
    await rmdir(dirname(path)).catch(() => undefined);
  }

  /** Removes what a daemon that was killed in the middle of a write has left. Before anything is written. */
  async removeTemporaries(): Promise<void> {
    for (const key of await namesIn(this.#dir)) {
      await removeTemporaries(join(this.#dir, key));
      await rmdir(join(this.#dir, key)).catch(() => undefined); // it has a file, which is meant to stay
    }
  }

  /** All that can be read; `unreadable` names the rest, which is left alone: deleting it could lose a VM. */
  async list(): Promise<StateList> {
    const keys = await namesIn(this.#dir);
    const lists = await Promise.all(keys.map((key) => this.#readDir(key)));
    return { states: lists.flatMap((l) => l.states), unreadable: lists.flatMap((l) => l.unreadable) };
  }

  #path(state: SandboxState): string {
    return join(this.#dir, taskKey(state.address, state.namespace, state.id), `${state.sandboxId}.json`);
  }

  async #readDir(key: string): Promise<StateList> {
    const states: SandboxState[] = [];
    const unreadable: string[] = [];
    for (const name of await namesIn(join(this.#dir, key))) {
      const path = join(this.#dir, key, name);
      if (!name.endsWith(".json")) continue;
      try {
        const text = await readIfThere(path);
        if (text !== undefined) states.push(parseConfig(SandboxState, JSON.parse(text), path));
      } catch {
        unreadable.push(path);
      }
    }
    return { states, unreadable };
  }
}

export interface StateList {
  readonly states: readonly SandboxState[];
  readonly unreadable: readonly string[];
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw e;
  }
}
