import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { ServerCall } from "../ttrpc/index.ts";
import { Meta, metadataValue } from "./wire.ts";

/** Work that a peer may cancel: ttrpc itself has no message for that. */
export class Operations {
  readonly #running = new Map<string, AbortController>();

  /** Runs it under the key that its call carries; it ends with the connection as well. */
  async run<T>(served: ServerCall, work: (call: Call) => Promise<T>, name: string = Meta.operation): Promise<T> {
    const key = metadataValue(served.metadata, name);
    if (key === undefined) return work({ signal: served.signal });
    const controller = new AbortController();
    this.#running.set(key, controller);
    try {
      return await work({ signal: AbortSignal.any([served.signal, controller.signal]) });
    } finally {
      if (this.#running.get(key) === controller) this.#running.delete(key);
    }
  }

  /** Work of an unknown key has ended. */
  cancel(key: string): void {
    this.#running.get(key)?.abort(new Fault("cancelled", "the caller gave up"));
  }
}
