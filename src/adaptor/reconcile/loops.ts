import { type Call, withDeadline } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import { sleep } from "../../base/retry.ts";
import type { Reconciler } from "./reconciler.ts";

/** Longest that one pass may take, ms: a provider that hangs must not end the loop for good. */
const PASS_TIMEOUT_MS = 120_000;

/** Runs reconcilers, each in a loop of its own: at once, then `intervalMs` after the end of each pass. */
export class Loops implements AsyncDisposable {
  readonly #closing = new AbortController();
  readonly #log: Logger;
  #running: Promise<void>[] = [];

  constructor(deps: { readonly log: Logger }) {
    this.#log = deps.log;
  }

  start(reconcilers: readonly Reconciler[]): void {
    this.#running.push(...reconcilers.map((r) => this.#run(r, { signal: this.#closing.signal })));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#running);
    this.#running = [];
  }

  async #run(reconciler: Reconciler, call: Call): Promise<void> {
    while (!call.signal.aborted) {
      try {
        const pass = await reconciler.reconcile(withDeadline(PASS_TIMEOUT_MS, call));
        if (pass.repaired > 0) this.#log.info({ loop: reconciler.name, ...pass }, "reconciled");
      } catch (e) {
        if (!call.signal.aborted)
          this.#log.warn({ loop: reconciler.name, err: e }, "reconcile pass failed, next one follows");
      }
      await sleep(reconciler.intervalMs, call).catch(() => undefined); // the end is seen above
    }
  }
}
