import { dirname } from "node:path";
import { Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
import { Mutex } from "../../base/mutex.ts";
import { MAX_VNI, Vni } from "../../podnetwork/index.ts";

const State = Type.Object(
  {
    version: Type.Literal(1),
    /** The next one to try: numbers come round as late as possible. */
    next: Vni,
    /** Sandbox id → its numbers. */
    taken: Type.Record(Type.String(), Type.Array(Vni)),
  },
  { additionalProperties: false },
);

interface Taken {
  next: number;
  readonly taken: Map<string, readonly number[]>;
}

/**
 * VXLAN network identifiers of this node, in a file that survives restarts and reboots. One is never given out while
 * its pod's VM may be alive, since a late packet of that VM would reach another pod.
 */
export class VniAllocator {
  readonly #path: string;
  readonly #first: number;
  readonly #mutex = new Mutex();
  #state: Taken | undefined;

  constructor(options: { readonly path: string; readonly first: number }) {
    this.#path = options.path;
    this.#first = options.first;
  }

  /** The sandbox's numbers; those it has already when it asks again. They are on disk when this resolves. */
  take(sandboxId: string, count: number): Promise<readonly number[]> {
    return this.#mutex.run(async () => {
      const state = await this.#load();
      const mine = state.taken.get(sandboxId) ?? [];
      if (mine.length === count) return mine;
      return await this.#give(state, sandboxId, count, mine);
    });
  }

  /** Other numbers for a sandbox: one of its own is used by somebody else on this host. */
  replace(sandboxId: string): Promise<readonly number[]> {
    return this.#mutex.run(async () => {
      const state = await this.#load();
      return await this.#give(state, sandboxId, state.taken.get(sandboxId)?.length ?? 0, []);
    });
  }

  release(sandboxId: string): Promise<void> {
    return this.#mutex.run(async () => {
      const state = await this.#load();
      if (state.taken.delete(sandboxId)) await this.#save(state);
    });
  }

  /** Gives back what belongs to none of these. */
  retain(sandboxIds: readonly string[]): Promise<void> {
    return this.#mutex.run(async () => {
      const state = await this.#load();
      const before = state.taken.size;
      for (const id of state.taken.keys()) if (!sandboxIds.includes(id)) state.taken.delete(id);
      if (state.taken.size !== before) await this.#save(state);
    });
  }

  async #give(state: Taken, sandboxId: string, count: number, kept: readonly number[]): Promise<readonly number[]> {
    const used = new Set([...state.taken.values()].flat());
    const given = kept.slice(0, count);
    for (let tried = 0; given.length < count; tried++) {
      if (tried > MAX_VNI)
        throw new Fault("resource_exhausted", `no VXLAN network identifier is left from ${this.#first} on`);
      const candidate = state.next;
      state.next = candidate >= MAX_VNI ? this.#first : candidate + 1;
      if (!used.has(candidate)) given.push(candidate);
    }
    state.taken.set(sandboxId, given);
    await this.#save(state);
    return given;
  }

  async #load(): Promise<Taken> {
    if (this.#state !== undefined) return this.#state;
    const text = await readIfThere(this.#path);
    const { next, taken } =
      text === undefined
        ? { next: this.#first, taken: {} }
        : parseConfig(State, parseJson(text, this.#path), this.#path);
    this.#state = { next: Math.max(next, this.#first), taken: new Map(Object.entries(taken)) };
    return this.#state;
  }

  async #save({ next, taken }: Taken): Promise<void> {
    await mkdirPrivate(dirname(this.#path));
    await writeFileAtomic(this.#path, JSON.stringify({ version: 1, next, taken: Object.fromEntries(taken) }));
  }
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const message = `${path} is not JSON: end every pod of this node, then remove it`;
    throw new Fault("failed_precondition", message, {}, { cause });
  }
}
