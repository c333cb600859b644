import type { Call } from "../../base/call.ts";
import type { OperationId } from "../../base/ids.ts";
import type { OperationRecord } from "../store/index.ts";

/** Kinds of work and what each is told. */
export interface OperationInput {
  readonly "start-vm": Readonly<Record<string, never>>;
  readonly "stop-vm": { readonly reason: string };
  readonly "collect-instance": Readonly<Record<string, never>>;
  /** One create request for several sandboxes: see podvm/batch/instance-class.ts. */
  readonly "create-batch": {
    readonly shape: string;
    readonly place: string;
    readonly members: string;
    readonly created: string;
  };
}
export type OperationKind = keyof OperationInput;

export interface Submission<K extends OperationKind> {
  readonly kind: K;
  /** A sandbox id, for collect-instance an instance id, for create-batch its own id. One operation per subject runs at a time. */
  readonly subject: string;
  readonly input: OperationInput[K];
  /** Made by the caller when it must be known before (it is the create token of start-vm). */
  readonly id?: OperationId;
  /** Instead of the kind's; lower goes first. What nobody waits for (pool refill) goes behind what someone does. */
  readonly priority?: number;
}

/** What a handler is given beside the operation. */
export interface Attempt {
  /** Ends when the operation is cancelled, its time is up or the adaptor closes. */
  readonly call: Call;
  /** Whether this is the last attempt: a Fault now fails the operation. */
  readonly last: boolean;
  /**
   * Call it before every effect: a worker that was given up on must not act any more.
   * @param progress what the attempt is about to do, for people; it is noted in the operation's record
   * @throws Fault aborted | cancelled | deadline_exceeded; unavailable while the store cannot be asked
   */
  fence(progress?: string): Promise<void>;
}

export type OperationHandler = (operation: OperationRecord, attempt: Attempt) => Promise<void>;

export interface HandlerLimits {
  /** How many of this kind may run at once. */
  readonly concurrency: number;
  /** How often one is begun before it fails; Infinity for what must never be given up. */
  readonly attempts: number;
  /** Lower goes first, 0 first of all. */
  readonly priority: number;
  /** Budget of one attempt, ms. */
  readonly timeoutMs: number;
}

/**
 * Work that outlives requests and restarts. The store holds the truth (state, attempts, back-off, lease); a queue only
 * moves work, so it can be rebuilt from the store at any time. Handlers run at least once: they are idempotent.
 */
export interface OperationQueue extends AsyncDisposable {
  /** Resolves when it is durable. While one of the same kind and subject is queued or running, that one is returned. */
  submit<K extends OperationKind>(submission: Submission<K>): Promise<OperationRecord>;
  /** Resolves when the operation is over, whatever its state; rejects only when `call` ends first. */
  wait(id: OperationId, call: Call): Promise<OperationRecord>;
  /** Ends it: a queued one at once, a running one as soon as its handler stops. False when it is over or unknown. */
  cancel(id: OperationId, reason: string): Promise<boolean>;
  /** Registers the code of a kind; before start(). */
  handle(kind: OperationKind, handler: OperationHandler, limits: HandlerLimits): void;
  /** Takes up whatever the store holds, what a dead adaptor was working on included. */
  start(): Promise<void>;
}
