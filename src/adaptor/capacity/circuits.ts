import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../../base/log.ts";
import type { FactStore } from "../store/index.ts";

/** A row of failed starts. */
export interface Circuit {
  readonly failures: number;
  /** No VM before this, ms since the epoch; 0 = VMs are made. */
  readonly openUntil: number;
  /** The one sandbox that may try though the circuit was open. */
  readonly probe?: string;
  /** Until when a probe that gives no sign of life blocks others, ms since the epoch. */
  readonly probeUntil: number;
  readonly lastReason: string;
  readonly usedAt: number;
  /** The sandboxes that failed last, oldest first. */
  readonly recent: readonly string[];
}

/** What becomes of a circuit; the same object: nothing, undefined: it is not there (any more). */
export type CircuitChange = (known: Circuit | undefined) => Circuit | undefined;

const PREFIX = "circuit:";
const RETRY_MS = 1_000;
/** Between two looks for what nobody needs any more, ms. */
const FORGET_EVERY_MS = 600_000;

/** Circuits in the store's facts, changed by compare-and-set. */
export class Circuits implements AsyncDisposable {
  readonly #facts: FactStore;
  readonly #log: Logger;
  readonly #closing = new AbortController();
  /** The last change of each that is still to be written: they are written in the order in which they were noted. */
  readonly #writing = new Map<string, Promise<void>>();
  #forgetting: Promise<void> = Promise.resolve();
  #forgotAt = Number.NEGATIVE_INFINITY;

  constructor(deps: { readonly facts: FactStore; readonly log: Logger }) {
    this.#facts = deps.facts;
    this.#log = deps.log;
  }

  /** As it is after what was noted before. @throws Fault unavailable */
  get(key: string): Promise<Circuit | undefined> {
    return this.change(key, (known) => known);
  }

  /** Changes one now, after what was noted before. @returns what it is afterwards. @throws Fault unavailable */
  async change(key: string, decide: CircuitChange): Promise<Circuit | undefined> {
    await this.#writing.get(key);
    return this.#swap(key, decide);
  }

  /** Changes one as soon as the store can be reached; nobody waits for it. */
  note(key: string, decide: CircuitChange): void {
    const before = this.#writing.get(key);
    const writing = this.#write(key, decide, before).finally(() => {
      if (this.#writing.get(key) === writing) this.#writing.delete(key);
    });
    this.#writing.set(key, writing);
  }

  async all(): Promise<ReadonlyMap<string, Circuit>> {
    const facts = await this.#facts.list(PREFIX);
    return new Map([...facts].map(([name, text]) => [name.slice(PREFIX.length), JSON.parse(text) as Circuit]));
  }

  /** Now and then removes those that are over. They only come into being by failures, so it is called with these. */
  forget(isOver: (circuit: Circuit) => boolean): void {
    const now = performance.now();
    if (now - this.#forgotAt < FORGET_EVERY_MS) return;
    this.#forgotAt = now;
    const clean = async (): Promise<void> => {
      for (const [key, circuit] of await this.all()) {
        if (isOver(circuit)) await this.change(key, (known) => (known && isOver(known) ? undefined : known));
      }
    };
    this.#forgetting = clean().catch((err: unknown) => this.#log.debug({ err }, "old circuits are removed later"));
  }

  /** Waits until what was noted is written, unless the store is away. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.all([this.#forgetting, ...this.#writing.values()]);
  }

  async #write(key: string, decide: CircuitChange, before: Promise<void> | undefined): Promise<void> {
    await before;
    for (;;) {
      try {
        await this.#swap(key, decide);
        return;
      } catch (err) {
        if (this.#closing.signal.aborted) return;
        this.#log.debug({ circuit: key, err }, "a circuit cannot be written yet");
        await delay(RETRY_MS, undefined, { signal: this.#closing.signal, ref: false }).catch(() => undefined);
      }
    }
  }

  async #swap(key: string, decide: CircuitChange): Promise<Circuit | undefined> {
    for (;;) {
      const text = await this.#facts.get(PREFIX + key);
      const known = text === undefined ? undefined : (JSON.parse(text) as Circuit);
      const next = decide(known);
      if (next === known) return known;
      const body = next === undefined ? undefined : JSON.stringify(next);
      if (await this.#facts.swap(PREFIX + key, text, body)) return next;
    }
  }
}
