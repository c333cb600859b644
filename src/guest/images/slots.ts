import type { Call } from "../../base/call.ts";
import { race } from "../../base/retry.ts";

/** Lets a fixed number of works run at a time; the others wait in the order they came. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** @throws Fault cancelled | deadline_exceeded when the call ends while it waits */
  async run<T>(work: () => Promise<T>, call: Call): Promise<T> {
    await this.#take(call);
    try {
      return await work();
    } finally {
      this.#give();
    }
  }

  async #take(call: Call): Promise<void> {
    call.signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    try {
      await race(promise, call);
    } catch (e) {
      const at = this.#waiting.indexOf(resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      else this.#give(); // it was given just now
      throw e;
    }
  }

  #give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
