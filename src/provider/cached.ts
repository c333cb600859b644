import { type Call, withDeadline } from "../base/call.ts";
import type { Clock } from "../base/clock.ts";
import { race } from "../base/retry.ts";

/** Loads go on for all who wait, whoever of them gives up. */
const LOAD_TIMEOUT_MS = 120_000;

interface Kept<V> {
  readonly value: Promise<V>;
  /** Set when it has been loaded, ms. */
  at: number | undefined;
}

/** Values that are loaded when first needed and kept for a while. Failures are not kept; one load serves all who wait. */
export class Cached<K, V> {
  readonly #load: (key: K, call: Call) => Promise<V>;
  readonly #keepMs: number;
  readonly #clock: Pick<Clock, "now">;
  readonly #kept = new Map<K, Kept<V>>();

  constructor(options: {
    readonly load: (key: K, call: Call) => Promise<V>;
    readonly keepMs: number;
    readonly clock: Pick<Clock, "now">;
  }) {
    this.#load = options.load;
    this.#keepMs = options.keepMs;
    this.#clock = options.clock;
  }

  get(key: K, call: Call): Promise<V> {
    const now = this.#clock.now().getTime();
    for (const [k, { at }] of this.#kept) if (at !== undefined && now - at >= this.#keepMs) this.#kept.delete(k);
    const kept = this.#kept.get(key) ?? this.#begin(key);
    return race(kept.value, call);
  }

  /** Loads it anew when it is asked for next. */
  drop(key: K): void {
    this.#kept.delete(key);
  }

  #begin(key: K): Kept<V> {
    const kept: Kept<V> = { value: this.#load(key, withDeadline(LOAD_TIMEOUT_MS)), at: undefined };
    this.#kept.set(key, kept);
    kept.value.then(
      () => {
        kept.at = this.#clock.now().getTime();
      },
      () => {
        if (this.#kept.get(key) === kept) this.#kept.delete(key);
      },
    );
    return kept;
  }
}
