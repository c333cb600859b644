import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/ids.ts";
import type { Logger } from "../../../base/log.ts";
import type { Assignment, BatchCreation, Instance } from "../../../provider/index.ts";
import type { SandboxRecord, SandboxStore } from "../../store/index.ts";

export interface TaggerDeps {
  readonly batches: BatchCreation;
  readonly sandboxes: SandboxStore;
  readonly log: Logger;
  readonly now: () => Date;
}

const CONCURRENCY = 8;
/** Listings show new tags late: an instance without them is left alone for this long, ms. */
const LATE_MS = 60_000;
/** Between two tries for one instance whose tags did not come to stay, ms. */
const AGAIN_MS = 600_000;

interface Wanted extends Assignment {
  readonly instance: InstanceId;
}

/**
 * Puts the sandbox's names on instances once they are assigned, for people who look at the cloud's console and for a
 * store that lost its records. Nobody waits for it. What an error or the end of an adaptor loses is made up for when a
 * listing shows it.
 */
export class Tagger {
  readonly #deps: TaggerDeps;
  readonly #closing = new AbortController();
  readonly #waiting: Wanted[] = [];
  /** Instances that wait or are being tagged. */
  readonly #busy = new Set<InstanceId>();
  /** Instances that a listing showed without tags: when they are tagged if they still are, ms since the epoch. */
  #dueAt = new Map<InstanceId, number>();
  #running = 0;
  #denied = false;

  constructor(deps: TaggerDeps) {
    this.#deps = deps;
  }

  tag(instance: InstanceId, assignment: Assignment): void {
    if (this.#denied || this.#busy.has(instance)) return;
    this.#busy.add(instance);
    this.#waiting.push({ instance, ...assignment });
    this.#next();
  }

  /** What a complete listing shows of the instances that records name. Those whose tags were lost are tagged. */
  compare(pairs: readonly (readonly [SandboxRecord, Instance])[]): void {
    const now = this.#deps.now().getTime();
    const before = this.#dueAt;
    this.#dueAt = new Map();
    for (const [{ id, nodeId, intent }, { id: instance, assigned }] of pairs) {
      if (intent === undefined || this.#denied) continue;
      if (assigned?.sandboxId === id && assigned.nodeId !== undefined) continue;
      const dueAt = this.#busy.has(instance) ? now + LATE_MS : (before.get(instance) ?? now + LATE_MS);
      this.#dueAt.set(instance, now < dueAt ? dueAt : now + AGAIN_MS);
      if (now >= dueAt) this.tag(instance, { name: intent.name, sandboxId: id, nodeId });
    }
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
        this.#busy.delete(wanted.instance);
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
      log.info({ instance, sandbox: assignment.sandboxId, err: e }, "the instance's tags do not name its sandbox yet");
    }
  }
}
