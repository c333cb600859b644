import type { Call } from "../../base/call.ts";
import { type Clock, realClock } from "../../base/clock.ts";
import { Fault } from "../../base/fault.ts";
import { newOperationId, type OperationId } from "../../base/ids.ts";
import type { NewOperation, OperationRecord } from "../store/index.ts";
import { cancelOperation } from "./cancel-operation.ts";
import type { HandlerLimits, OperationHandler, OperationKind, OperationQueue, Submission } from "./operation-queue.ts";
import { type Kind, OperationRuns, type OperationRunsDeps } from "./operation-runs.ts";
import { waitUntilOver } from "./wait-until-over.ts";

export type EmbeddedQueueDeps = OperationRunsDeps;

/** The queue inside of the adaptor's process: the store is the queue, and this looks at it when something may be due. */
export class EmbeddedQueue implements OperationQueue {
  readonly #deps: EmbeddedQueueDeps;
  readonly #kinds = new Map<string, Kind>();
  readonly #runs: OperationRuns;
  #started = false;
  #claiming = false;
  #claimAgain = false;
  readonly #clock: Clock;
  #cancelTimer: (() => void) | undefined;

  constructor(deps: EmbeddedQueueDeps) {
    this.#deps = deps;
    this.#clock = deps.clock ?? realClock;
    this.#runs = new OperationRuns(deps);
  }

  handle(kind: OperationKind, handler: OperationHandler, limits: HandlerLimits): void {
    this.#kinds.set(kind, { handler, limits });
  }

  async start(): Promise<void> {
    const resumed = await this.#deps.store.requeueAbandoned();
    if (resumed > 0) this.#deps.log.info({ resumed }, "operations taken up again");
    this.#started = true;
    this.#look();
  }

  async submit<K extends OperationKind>(submission: Submission<K>): Promise<OperationRecord> {
    const { kind, subject, id = newOperationId(), priority = this.#kindOf(kind).limits.priority } = submission;
    const input = submission.input as NewOperation["input"];
    const operation = await this.#deps.store.submit({ id, kind, subject, input, priority });
    this.#look();
    return operation;
  }

  wait(id: OperationId, call: Call): Promise<OperationRecord> {
    return waitUntilOver(this.#deps.store, id, call);
  }

  cancel(id: OperationId, reason: string): Promise<boolean> {
    return cancelOperation(this.#deps, id, reason);
  }

  /** Interrupts what runs; it is taken up by the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancelTimer?.();
    await this.#runs[Symbol.asyncDispose]();
  }

  #kindOf(kind: string): Kind {
    const known = this.#kinds.get(kind);
    if (known === undefined) throw new Fault("internal", `nothing handles operations of kind ${kind}`);
    return known;
  }

  /** Begins what is due and has room; asks again for whatever came meanwhile. */
  #look(): void {
    if (!this.#started || this.#runs.closing.aborted) return;
    this.#claimAgain = true;
    if (this.#claiming) return;
    this.#claiming = true;
    this.#claimAll().catch((e: unknown) => {
      this.#deps.log.error({ err: e }, "operations cannot be claimed");
      this.#lookIn(1000);
    });
  }

  async #claimAll(): Promise<void> {
    try {
      do {
        this.#claimAgain = false;
        const claimed = await this.#deps.store.claim({ room: this.#room() });
        for (const operation of claimed) this.#begin(operation);
        await this.#sleepUntilNext();
      } while (this.#claimAgain && !this.#runs.closing.aborted);
    } finally {
      // In the same breath as the last look at claimAgain: a wish that came between the two would be forgotten.
      this.#claiming = false;
    }
  }

  #room(): Map<string, number> {
    const byUrgency = [...this.#kinds].sort(([, a], [, b]) => a.limits.priority - b.limits.priority);
    return new Map(byUrgency.map(([kind, { limits }]) => [kind, limits.concurrency - this.#runs.count(kind)]));
  }

  /** Only kinds with room count: for the others the end of a running operation looks again. */
  async #sleepUntilNext(): Promise<void> {
    const open = [...this.#room()].filter(([, room]) => room > 0).map(([kind]) => kind);
    const next = await this.#deps.store.nextWake(open);
    if (next === undefined) this.#cancelTimer?.();
    // At least 20 ms: what is due but whose subject is busy must not spin.
    else this.#lookIn(Math.min(Math.max(next - this.#deps.now().getTime(), 20), 60_000));
  }

  #lookIn(ms: number): void {
    this.#cancelTimer?.();
    if (!this.#runs.closing.aborted) this.#cancelTimer = this.#clock.after(ms, () => this.#look(), { guard: true });
  }

  #begin(operation: OperationRecord): void {
    void this.#runs
      .run(operation, this.#kindOf(operation.kind))
      .catch((e: unknown) => {
        this.#deps.log.error({ operation: operation.id, err: e }, "an operation ended in a way that nobody thought of");
      })
      .finally(() => this.#look());
  }
}
