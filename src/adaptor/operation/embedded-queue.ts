import { EventEmitter } from "node:events";
import type { Call } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { newOperationId, type OperationId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { ended, race, sleep } from "../../base/retry.ts";
import type { NewOperation, OperationRecord, OperationStore, Settlement } from "../store/index.ts";
import type {
  Attempt,
  HandlerLimits,
  OperationHandler,
  OperationKind,
  OperationQueue,
  Submission,
} from "./operation-queue.ts";
import { settlementOf } from "./settlement.ts";

export interface EmbeddedQueueDeps {
  readonly store: OperationStore;
  readonly log: Logger;
  readonly now: () => Date;
  /** Told of every operation that is over. */
  readonly onOver?: (operation: OperationRecord) => void;
  /** A handler that goes on this long after its call ended is given up: its subject becomes free, its lease void. */
  readonly abandonAfterMs?: number;
}

const SETTLE_RETRY_MS = 1000;

interface Kind {
  readonly handler: OperationHandler;
  readonly limits: HandlerLimits;
}

interface Running {
  readonly operation: OperationRecord;
  readonly cancel: AbortController;
  readonly over: Promise<void>;
}

/** The queue inside of the adaptor's process: the store is the queue, and this looks at it when something may be due. */
export class EmbeddedQueue implements OperationQueue {
  readonly #store: OperationStore;
  readonly #log: Logger;
  readonly #now: () => Date;
  readonly #onOver: (operation: OperationRecord) => void;
  readonly #abandonAfterMs: number;
  readonly #kinds = new Map<string, Kind>();
  readonly #running = new Map<OperationId, Running>();
  readonly #over = new EventEmitter<Record<string, [OperationRecord]>>().setMaxListeners(0);
  readonly #closing = new AbortController();
  #started = false;
  #claiming = false;
  #claimAgain = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: EmbeddedQueueDeps) {
    this.#store = deps.store;
    this.#log = deps.log;
    this.#now = deps.now;
    this.#onOver = deps.onOver ?? (() => undefined);
    this.#abandonAfterMs = deps.abandonAfterMs ?? 30_000;
  }

  handle(kind: OperationKind, handler: OperationHandler, limits: HandlerLimits): void {
    this.#kinds.set(kind, { handler, limits });
  }

  async start(): Promise<void> {
    const resumed = await this.#store.requeueRunning();
    if (resumed > 0) this.#log.info({ resumed }, "operations taken up again");
    this.#started = true;
    this.#look();
  }

  async submit<K extends OperationKind>(submission: Submission<K>): Promise<OperationRecord> {
    const { kind, subject, id = newOperationId() } = submission;
    const priority = this.#kindOf(kind).limits.priority;
    const input = submission.input as NewOperation["input"];
    const operation = await this.#store.submit({ id, kind, subject, input, priority });
    this.#look();
    return operation;
  }

  async wait(id: OperationId, call: Call): Promise<OperationRecord> {
    const { promise, resolve } = deferred<OperationRecord>();
    this.#over.once(id, resolve);
    try {
      const operation = await this.#store.get(id);
      if (operation === undefined) throw new Fault("not_found", `operation ${id} is unknown`, { operationId: id });
      if (operation.finishedAt !== undefined) return operation;
      return await race(promise, call);
    } finally {
      this.#over.off(id, resolve);
    }
  }

  async cancel(id: OperationId, reason: string): Promise<boolean> {
    if (await this.#store.cancelQueued(id, reason)) {
      const operation = await this.#store.get(id);
      if (operation !== undefined) this.#tellOver(operation);
      return true;
    }
    const running = this.#running.get(id);
    running?.cancel.abort(new Fault("cancelled", reason, { operationId: id }));
    return running !== undefined;
  }

  /** Interrupts what runs; it is taken up by the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Fault("cancelled", "the adaptor is closing"));
    clearTimeout(this.#timer);
    await Promise.all([...this.#running.values()].map((r) => r.over));
  }

  #kindOf(kind: string): Kind {
    const known = this.#kinds.get(kind);
    if (known === undefined) throw new Fault("internal", `nothing handles operations of kind ${kind}`);
    return known;
  }

  /** Begins what is due and has room; asks again for whatever came meanwhile. */
  #look(): void {
    if (!this.#started || this.#closing.signal.aborted) return;
    this.#claimAgain = true;
    if (this.#claiming) return;
    this.#claiming = true;
    this.#claimAll()
      .catch((e: unknown) => this.#log.error({ err: e }, "operations cannot be claimed"))
      .finally(() => {
        this.#claiming = false;
      });
  }

  async #claimAll(): Promise<void> {
    while (this.#claimAgain && !this.#closing.signal.aborted) {
      this.#claimAgain = false;
      const claimed = await this.#store.claim({
        room: this.#room(),
        busy: new Set([...this.#running.values()].map((r) => r.operation.subject)),
      });
      for (const operation of claimed) this.#begin(operation);
      await this.#sleepUntilNext();
    }
    while (this.#claimAgain && !this.#closing.signal.aborted);
  }

  #room(): Map<string, number> {
    const byUrgency = [...this.#kinds].sort(([, a], [, b]) => a.limits.priority - b.limits.priority);
    return new Map(
      byUrgency.map(([kind, { limits }]) => {
        const busy = [...this.#running.values()].filter((r) => r.operation.kind === kind).length;
        return [kind, limits.concurrency - busy];
      }),
    );
  }

  /** Only kinds with room count: for the others the end of a running operation looks again. */
  async #sleepUntilNext(): Promise<void> {
    clearTimeout(this.#timer);
    const open = [...this.#room()].filter(([, room]) => room > 0).map(([kind]) => kind);
    const next = await this.#store.nextWake(open);
    if (next === undefined || this.#closing.signal.aborted) return;
    // At least 20 ms: what is due but whose subject is busy must not spin.
    const delayMs = Math.min(Math.max(next - this.#now().getTime(), 20), 60_000);
    this.#timer = setTimeout(() => this.#look(), delayMs).unref();
  }

  #begin(operation: OperationRecord): void {
    const cancel = new AbortController();
    const over = this.#run(operation, cancel).catch((e: unknown) => {
      this.#log.error({ operation: operation.id, err: e }, "an operation ended in a way that nobody thought of");
    });
    const running = { operation, cancel, over };
    this.#running.set(operation.id, running);
    void over.finally(() => {
      if (this.#running.get(operation.id) === running) this.#running.delete(operation.id);
      this.#look();
    });
  }

  async #run(operation: OperationRecord, cancel: AbortController): Promise<void> {
    const { handler, limits } = this.#kindOf(operation.kind);
    const signal = AbortSignal.any([cancel.signal, this.#closing.signal, AbortSignal.timeout(limits.timeoutMs)]);
    const call: Call = { signal };
    const attempt: Attempt = {
      call,
      last: operation.attempt >= limits.attempts,
      fence: () => this.#fence(operation, call),
    };
    const abandoned = deferred<never>();
    let grace: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      const fault = new Fault("deadline_exceeded", `${operation.kind} did not stop when it was told to`);
      grace = setTimeout(() => abandoned.reject(fault), this.#abandonAfterMs).unref();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    let settlement: Settlement;
    try {
      await Promise.race([handler(operation, attempt), abandoned.promise]);
      settlement = { state: "done" };
    } catch (e) {
      const fault = Fault.from(e, { operationId: operation.id });
      const cause = this.#closing.signal.aborted ? "closing" : cancel.signal.aborted ? "cancelled" : "failed";
      settlement = settlementOf({ operation, fault, cause, attempts: limits.attempts, now: this.#now() });
      this.#log.warn(
        {
          operation: operation.id,
          kind: operation.kind,
          subject: operation.subject,
          attempt: operation.attempt,
          outcome: settlement.state,
          err: fault,
        },
        "attempt of an operation ended early",
      );
    } finally {
      clearTimeout(grace);
      signal.removeEventListener("abort", onAbort);
    }
    const settled = await this.#settle(operation, settlement);
    if (settled?.finishedAt !== undefined) this.#tellOver(settled);
  }

  /** Keeps trying while the store cannot be written (disk full): an operation left `running` would block its subject. */
  async #settle(operation: OperationRecord, settlement: Settlement): Promise<OperationRecord | undefined> {
    for (;;) {
      try {
        return await this.#store.settle(operation.id, operation.lease, settlement);
      } catch (e) {
        this.#log.error({ operation: operation.id, err: e }, "the end of an operation could not be written");
        const taken = e instanceof Fault && e.code === "aborted";
        if (taken || this.#closing.signal.aborted) return undefined; // else the next start takes it up again
        await sleep(SETTLE_RETRY_MS, { signal: this.#closing.signal }).catch(() => undefined);
      }
    }
  }

  async #fence(operation: OperationRecord, call: Call): Promise<void> {
    if (call.signal.aborted) throw ended(call);
    const current = await this.#store.get(operation.id);
    if (current?.state === "running" && current.lease === operation.lease) return;
    throw new Fault("aborted", `operation ${operation.id} was taken over`, { operationId: operation.id });
  }

  #tellOver(operation: OperationRecord): void {
    this.#onOver(operation);
    this.#over.emit(operation.id, operation);
  }
}
