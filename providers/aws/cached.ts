import { type Call, withDeadline } from "../../src/base/call.ts";
import { race } from "../../src/base/retry.ts";

/** Loads go on for all who wait, whoever of them gives up. */
const LOAD_TIMEOUT_MS = 120_000;

/** A value that is loaded when first needed and kept for a while. Failures are not kept; one load serves all who wait. */
export class Cached<T> {
  readonly #load: (call: Call) => Promise<T>;
  readonly #keepMs: number;
  readonly #now: () => Date;
  #loading: Promise<T> | undefined;
  #kept: { readonly value: T; readonly at: number } | undefined;

  constructor(options: {
    readonly load: (call: Call) => Promise<T>;
    readonly keepMs: number;
    readonly now: () => Date;
  }) {
    this.#load = options.load;
    this.#keepMs = options.keepMs;
    this.#now = options.now;
  }

  async get(call: Call): Promise<T> {
    const kept = this.#kept;
    if (kept !== undefined && this.#now().getTime() - kept.at < this.#keepMs) return kept.value;
    this.#loading ??= this.#loadOnce();
    return race(this.#loading, call);
  }

  async #loadOnce(): Promise<T> {
    try {
      const value = await this.#load(withDeadline(LOAD_TIMEOUT_MS));
      this.#kept = { value, at: this.#now().getTime() };
      return value;
    } finally {
      this.#loading = undefined;
    }
  }
}
