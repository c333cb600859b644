import type { Call } from "../../base/call.ts";
import { race } from "../../base/retry.ts";
import type { SandboxRecord, SandboxStore } from "../store/index.ts";

/**
 * The records that match, each time one is written. Begins to listen when it is made, not when it is first read, so a
 * caller that reads the store afterwards misses nothing. Ends (by return) with the call.
 */
export class RecordChanges implements Disposable {
  readonly #unwatch: () => void;
  #waiting: SandboxRecord[] = [];
  #wake: () => void = () => undefined;

  constructor(store: SandboxStore, matches: (record: SandboxRecord) => boolean) {
    this.#unwatch = store.watch((record) => {
      if (!matches(record)) return;
      this.#waiting.push(record);
      this.#wake();
    });
  }

  /** The next ones; waits when there are none. @throws Fault when the call ends first */
  async next(call: Call): Promise<readonly SandboxRecord[]> {
    if (this.#waiting.length === 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await race(promise, call);
    }
    const found = this.#waiting;
    this.#waiting = [];
    return found;
  }

  [Symbol.dispose](): void {
    this.#unwatch();
  }
}
