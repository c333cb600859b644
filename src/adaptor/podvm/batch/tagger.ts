import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/ids.ts";
import type { Logger } from "../../../base/log.ts";
import type { Assignment, BatchCreation } from "../../../provider/index.ts";
import type { SandboxStore } from "../../store/index.ts";

const CONCURRENCY = 8;

interface Wanted extends Assignment {
  readonly instance: InstanceId;
}

/**
 * Puts the sandbox's names on instances once they are assigned, for people who look at the cloud's console. Nothing
 * depends on it and nobody waits for it: what a restart or an error loses is not made up for.
 */
export class Tagger {
  readonly #deps: { readonly batches: BatchCreation; readonly sandboxes: SandboxStore; readonly log: Logger };
  readonly #closing = new AbortController();
  readonly #waiting: Wanted[] = [];
  #running = 0;
  #denied = false;

  constructor(deps: { readonly batches: BatchCreation; readonly sandboxes: SandboxStore; readonly log: Logger }) {
    this.#deps = deps;
  }

  tag(instance: InstanceId, assignment: Assignment): void {
    if (this.#denied) return;
    this.#waiting.push({ instance, ...assignment });
    this.#next();
  }

  close(): void {
    this.#closing.abort();
    this.#waiting.length = 0;
  }

  /** Asking for each of thousands would be in the way of requests that matter. */
  #giveUp(cause: unknown): void {
    if (this.#denied) return;
    this.#denied = true;
    this.#waiting.length = 0;
    this.#deps.log.warn({ err: cause }, "instances get no tags with their sandbox's name until the next start");
  }

  #next(): void {
    while (this.#running < CONCURRENCY) {
      const wanted = this.#waiting.shift();
      if (wanted === undefined) return;
      this.#running++;
      void this.#tag(wanted).finally(() => {
        this.#running--;
        this.#next();
      });
    }
  }

  async #tag({ instance, ...assignment }: Wanted): Promise<void> {
    const { batches, sandboxes, log } = this.#deps;
    try {
      const record = await sandboxes.get(assignment.sandboxId);
      // Stopped meanwhile: the instance is about to go.
      if (record?.instance?.id !== instance || record.phase === "stopping") return;
      await batches.assign(instance, assignment, { signal: this.#closing.signal, background: true });
    } catch (e) {
      if (this.#closing.signal.aborted) return;
      if (Fault.from(e).code === "permission_denied") return this.#giveUp(e);
      log.info({ instance, sandbox: assignment.sandboxId, err: e }, "the instance's tags do not name its sandbox");
    }
  }
}
