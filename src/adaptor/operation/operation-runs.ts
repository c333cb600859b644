import type { Call } from "../../base/call.ts";
import { type Clock, deadlineOn, realClock, sleepOn } from "../../base/clock.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { OperationId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { ended } from "../../base/retry.ts";
import type { OperationRecord, OperationStore, Settlement } from "../store/index.ts";
import type { Attempt, HandlerLimits, OperationHandler } from "./operation-queue.ts";
import { settlementOf } from "./settlement.ts";

export interface OperationRunsDeps {
  readonly store: OperationStore;
  readonly log: Logger;
  readonly now: () => Date;
  /** For waits; the machine's own unless given. */
  readonly clock?: Clock;
  /** Told of every operation that ended here. */
  readonly onOver?: (operation: OperationRecord) => void;
  /** A handler that goes on this long after its call ended is given up: its subject becomes free, its lease void. */
  readonly abandonAfterMs?: number;
}

/** Code and limits of a kind of operation. */
export interface Kind {
  readonly handler: OperationHandler;
  readonly limits: HandlerLimits;
}

interface Running {
  readonly operation: OperationRecord;
  readonly cancel: AbortController;
  readonly taken: AbortController;
  over: Promise<unknown>;
}

const SETTLE_RETRY_MS = 1000;

/**
 * The operations that run in this process. Whatever queue moves them, this gives each its time, its fence and its
 * cancellation, keeps its lease, and writes down how it ended.
 */
export class OperationRuns implements AsyncDisposable {
  readonly #deps: OperationRunsDeps;
  readonly #running = new Map<OperationId, Running>();
  readonly #closing = new AbortController();
  readonly #clock: Clock;
  readonly #counts = new Map<string, number>();
  readonly #renewal: NodeJS.Timeout | undefined;
  readonly #unwatch: () => void;

  constructor(deps: OperationRunsDeps) {
    this.#deps = deps;
    this.#clock = deps.clock ?? realClock;
    const { leaseMs } = deps.store;
    if (leaseMs !== undefined) this.#renewal = setInterval(() => void this.#renew(), leaseMs / 3).unref();
    this.#unwatch = deps.store.watch((operation) => this.#obey(operation));
  }

  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  has(id: OperationId): boolean {
    return this.#running.has(id);
  }

  count(kind: string): number {
    return this.#counts.get(kind) ?? 0;
  }

  /** Runs a claimed operation. @returns what became of it; undefined when it is not ours any more */
  async run(operation: OperationRecord, kind: Kind): Promise<OperationRecord | undefined> {
    const running: Running = {
      operation,
      cancel: new AbortController(),
      taken: new AbortController(),
      over: Promise.resolve(),
    };
    const work = this.#attempt(running, kind);
    running.over = work.catch(() => undefined); // whoever called run sees it; closing only waits
    this.#running.set(operation.id, running);
    this.#counts.set(operation.kind, this.count(operation.kind) + 1);
    try {
      return await work;
    } finally {
      this.#counts.set(operation.kind, this.count(operation.kind) - 1);
      if (this.#running.get(operation.id) === running) this.#running.delete(operation.id);
    }
  }

  /** Ends the call of one that runs here. */
  cancel(id: OperationId, reason: string): boolean {
    const running = this.#running.get(id);
    running?.cancel.abort(new Fault("cancelled", reason, { operationId: id }));
    return running !== undefined;
  }

  /** Interrupts what runs, and waits until that is written down. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Fault("cancelled", "the adaptor is closing"));
    await Promise.all([...this.#running.values()].map((r) => r.over));
    clearInterval(this.#renewal);
    this.#unwatch();
  }

  async #attempt(running: Running, { handler, limits }: Kind): Promise<OperationRecord | undefined> {
    const { operation, cancel, taken } = running;
    const log = this.#deps.log.child({ operation: operation.id, kind: operation.kind, subject: operation.subject });
    const deadline = deadlineOn(this.#clock, limits.timeoutMs);
    const signal = AbortSignal.any([cancel.signal, taken.signal, this.#closing.signal, deadline.signal]);
    const call: Call = { signal };
    const attempt: Attempt = {
      call,
      last: operation.attempt >= limits.attempts,
      fence: (progress) => this.#fence(operation, call, progress),
    };
    const abandoned = deferred<never>();
    let endGrace: (() => void) | undefined;
    const onAbort = (): void => {
      const fault = new Fault("deadline_exceeded", `${operation.kind} did not stop when it was told to`);
      const abandonAfterMs = this.#deps.abandonAfterMs ?? 30_000;
      endGrace = this.#clock.after(abandonAfterMs, () => abandoned.reject(fault), { guard: true });
    };
    signal.addEventListener("abort", onAbort, { once: true });
    // Asked to end while nobody ran it any more: its handler is not even begun.
    if (operation.cancelReason !== undefined) this.#cancel(running, operation.cancelReason);
    let settlement: Settlement;
    try {
      if (cancel.signal.aborted) throw ended(call);
      await Promise.race([handler(operation, attempt), abandoned.promise]);
      settlement = { state: "done" };
    } catch (e) {
      const fault = Fault.from(e, { operationId: operation.id });
      const cause = cancel.signal.aborted ? "cancelled" : this.#closing.signal.aborted ? "closing" : "failed";
      settlement = settlementOf({ operation, fault, cause, attempts: limits.attempts, now: this.#deps.now() });
      const outcome = taken.signal.aborted ? "taken over" : settlement.state;
      log.warn({ attempt: operation.attempt, outcome, err: fault }, "attempt of an operation ended early");
    } finally {
      deadline.cancel();
      endGrace?.();
      signal.removeEventListener("abort", onAbort);
    }
    const settled = await this.#settle(operation, settlement);
    if (settled?.finishedAt !== undefined) this.#deps.onOver?.(settled);
    return settled;
  }

  /** Keeps trying while the store cannot be written: an operation left `running` would block its subject. */
  async #settle(operation: OperationRecord, settlement: Settlement): Promise<OperationRecord | undefined> {
    for (;;) {
      try {
        return await this.#deps.store.settle(operation.id, operation.lease, settlement);
      } catch (e) {
        this.#deps.log.error({ operation: operation.id, err: e }, "the end of an operation could not be written");
        const taken = e instanceof Fault && e.code === "aborted";
        if (taken || this.#closing.signal.aborted) return undefined; // else the next start takes it up again
        await sleepOn(this.#clock, SETTLE_RETRY_MS, { signal: this.#closing.signal }).catch(() => undefined);
      }
    }
  }

  async #fence(operation: OperationRecord, call: Call, progress?: string): Promise<void> {
    if (call.signal.aborted) throw ended(call);
    const { store } = this.#deps;
    if (progress !== undefined) return store.note({ id: operation.id, lease: operation.lease }, progress);
    const current = await store.get(operation.id);
    if (current?.state === "running" && current.lease === operation.lease) return;
    throw takenOver(operation);
  }

  async #renew(): Promise<void> {
    const all = [...this.#running.values()];
    if (all.length === 0) return;
    try {
      const held = await this.#deps.store.renew(all.map(({ operation: { id, lease } }) => ({ id, lease })));
      const byId = new Map(held.map((operation) => [operation.id, operation]));
      for (const running of all) {
        const current = byId.get(running.operation.id);
        if (current !== undefined) this.#obey(current);
        // Settled meanwhile, it is not held any more and not here either.
        else if (this.#running.get(running.operation.id) === running) running.taken.abort(takenOver(running.operation));
      }
    } catch (e) {
      this.#deps.log.warn({ operations: all.length, err: e }, "leases of operations could not be renewed");
    }
  }

  /** Someone may have asked for its end, on this adaptor or another. */
  #obey({ id, state, lease, cancelReason }: OperationRecord): void {
    const running = this.#running.get(id);
    if (state !== "running" || cancelReason === undefined || running?.operation.lease !== lease) return;
    this.#cancel(running, cancelReason);
  }

  #cancel(running: Running, reason: string): void {
    running.cancel.abort(new Fault("cancelled", reason, { operationId: running.operation.id }));
  }
}

function takenOver({ id }: OperationRecord): Fault {
  return new Fault("aborted", `operation ${id} was taken over`, { operationId: id });
}
