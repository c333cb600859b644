import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { race } from "../../base/retry.ts";
import { Slots } from "./slots.ts";
import { type UnpackedLayer, unpackLayer } from "./unpack-layer.ts";

/** A layer on the guest's disk, complete and checked. */
export interface StoredLayer {
  readonly diffId: string;
  readonly directory: string;
  /** Directories without an entry of their own; emptied when they were made to look like those below. */
  readonly implicit: Set<string>;
  /** Uncompressed, bytes. */
  readonly bytes: number;
  /** Pulls and containers that need it. */
  users: number;
}

export interface LayerSource {
  readonly diffId: string;
  /** For messages. */
  readonly what: string;
  /** Its bytes from the start, once for each place it may come from; the next place is taken when one fails. */
  readonly attempts: readonly ((call: Call) => AsyncIterable<Buffer>)[];
  /** Told why a place was left for the next one. */
  readonly onFailure: (error: unknown) => void;
}

/** Layers that are unpacked at a time in this VM: each holds some MB of buffers. */
const AT_A_TIME = 3;

/** The layers of all images of this VM, each once. What is not complete is never seen. */
export class LayerStore {
  readonly #base: string;
  readonly #layers = new Map<string, StoredLayer>();
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #slots = new Slots(AT_A_TIME);
  #serial = 0;

  /** @param base a short path: up to 127 of those below have to fit into a page together */
  constructor(base: string) {
    this.#base = base;
  }

  has(diffId: string): boolean {
    return this.#layers.has(diffId);
  }

  /**
   * A layer, fetched when it is not here; given with one more user. Whoever wants one that is on its way waits for it.
   * @throws Fault as unpackLayer does; then nothing of it is left
   */
  async acquire(source: LayerSource, call: Call): Promise<StoredLayer> {
    for (;;) {
      const there = this.#layers.get(source.diffId);
      if (there !== undefined) {
        there.users += 1;
        return there;
      }
      const other = this.#running.get(source.diffId);
      if (other === undefined) break;
      // Its failure is told to who began it; then this one takes its turn.
      await race(
        other.catch(() => undefined),
        call,
      );
    }
    const fetching = this.#slots.run(() => this.#fetch(source, call), call);
    this.#running.set(source.diffId, fetching);
    try {
      const layer = await fetching;
      this.#layers.set(source.diffId, layer);
      return layer;
    } finally {
      this.#running.delete(source.diffId);
    }
  }

  release(layer: StoredLayer): void {
    layer.users -= 1;
  }

  /** Removes what nobody needs. @returns bytes that became free, roughly */
  async removeUnused(): Promise<number> {
    const unused = [...this.#layers.values()].filter((layer) => layer.users === 0);
    for (const { diffId } of unused) this.#layers.delete(diffId);
    for (const { directory } of unused) await rm(directory, { recursive: true, force: true });
    return unused.reduce((sum, layer) => sum + layer.bytes, 0);
  }

  /** An empty directory that is no layer's, for what is made in the guest itself. */
  makeDirectory(): string {
    this.#serial += 1;
    const directory = `${this.#base}/${this.#serial.toString(36)}`;
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    return directory;
  }

  async #fetch(source: LayerSource, call: Call): Promise<StoredLayer> {
    const { diffId, what, attempts, onFailure } = source;
    for (const [i, open] of attempts.entries()) {
      const directory = this.makeDirectory();
      try {
        const unpacked: UnpackedLayer = await unpackLayer({ blob: open(call), diffId, directory, what }, call);
        return { diffId, directory, implicit: new Set(unpacked.implicit), bytes: unpacked.bytes, users: 1 };
      } catch (e) {
        await rm(directory, { recursive: true, force: true });
        if (i === attempts.length - 1 || call.signal.aborted || (e as NodeJS.ErrnoException).code === "ENOSPC") throw e;
        onFailure(e);
      }
    }
    throw new Error(`${what} has no place to come from`);
  }
}
