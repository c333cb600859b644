import { dirname } from "node:path";
import { Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
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

export interface GivenVnis {
  readonly vnis: readonly number[];
  /** Resolves when they are on disk: only then may a VM be told them. */
  readonly written: Promise<void>;
}

/**
 * VXLAN network identifiers of this node, in a file that survives restarts and reboots. One is never given out while
 * its pod's VM may be alive, since a late packet of that VM would reach another pod.
 */
export class VniAllocator {
  readonly #path: string;
  readonly #first: number;
  #state: Promise<Taken> | undefined;
  /** The write that is under way, and the one that begins after it: whoever comes meanwhile shares that. */
  #running: Promise<void> = Promise.resolve();
  #queued: Promise<void> | undefined;
  /** Changes made, and those of them that are on disk. */
  #changes = 0;
  #written = 0;

  constructor(options: { readonly path: string; readonly first: number }) {
    this.#path = options.path;
    this.#first = options.first;
  }

  /** The sandbox's numbers; those it has already when it asks again. */
  async take(sandboxId: string, count: number): Promise<GivenVnis> {
    const state = await this.#load();
    const mine = state.taken.get(sandboxId) ?? [];
    if (mine.length === count) return { vnis: mine, written: this.#onDisk() ? Promise.resolve() : this.#save(state) };
    return this.#give(state, sandboxId, count, mine);
  }

  /** Other numbers for a sandbox: one of its own is used by somebody else on this host. */
  async replace(sandboxId: string): Promise<GivenVnis> {
    const state = await this.#load();
    return this.#give(state, sandboxId, state.taken.get(sandboxId)?.length ?? 0, []);
  }

  /** On disk when it resolves. */
  async release(sandboxId: string): Promise<void> {
    const state = await this.#load();
    if (!state.taken.delete(sandboxId)) return;
    this.#changes++;
    await this.#save(state);
  }

  /** Gives back what belongs to none of these. */
  async retain(sandboxIds: readonly string[]): Promise<void> {
    const state = await this.#load();
    const before = state.taken.size;
    for (const id of state.taken.keys()) if (!sandboxIds.includes(id)) state.taken.delete(id);
    if (state.taken.size === before) return;
    this.#changes++;
    await this.#save(state);
  }

  #give(state: Taken, sandboxId: string, count: number, kept: readonly number[]): GivenVnis {
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
    this.#changes++;
    return { vnis: given, written: this.#save(state) };
  }

  #load(): Promise<Taken> {
    this.#state ??= this.#read().catch((e: unknown) => {
      this.#state = undefined;
      throw e;
    });
    return this.#state;
  }

  async #read(): Promise<Taken> {
    const text = await readIfThere(this.#path);
    const { next, taken } =
      text === undefined
        ? { next: this.#first, taken: {} }
        : parseConfig(State, parseJson(text, this.#path), this.#path);
    await mkdirPrivate(dirname(this.#path));
    return { next: Math.max(next, this.#first), taken: new Map(Object.entries(taken)) };
  }

  /** Pods that start together share a write: it is forced to the disk, which takes longer than all the rest. */
  #save(state: Taken): Promise<void> {
    if (this.#queued === undefined) {
      this.#queued = this.#running
        .catch(() => undefined) // told to those who waited for it; this one writes all of it again
        .then(() => {
          this.#queued = undefined;
          this.#running = this.#write(state);
          return this.#running;
        });
      this.#queued.catch(() => undefined); // for whoever waits
    }
    return this.#queued;
  }

  async #write({ next, taken }: Taken): Promise<void> {
    const changes = this.#changes;
    await writeFileAtomic(this.#path, JSON.stringify({ version: 1, next, taken: Object.fromEntries(taken) }));
    this.#written = changes;
  }

  #onDisk(): boolean {
    return this.#written === this.#changes;
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
