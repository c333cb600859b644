import type { OperationId, SandboxId } from "../../base/ids.ts";
import type { FactStore } from "./fact-store.ts";
import type { HeldLease, NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
import type { Phase, SandboxChange, SandboxRecord } from "./sandbox-record.ts";

/**
 * Durable memory of the adaptor. A promise resolves when the change is on disk; changes asked for in one turn of the
 * event loop reach the disk together or not at all.
 */
export interface AdaptorStore extends AsyncDisposable {
  readonly epoch: Epoch;
  readonly sandboxes: SandboxStore;
  readonly operations: OperationStore;
  readonly facts: FactStore;
  /** How far this store has come: `seq` grows with every change of one epoch. Who remembers a higher one saw it set back. */
  readonly position: Position;
  /**
   * Begins a new epoch, because something outside remembers more of this one than the store does. Whoever shares the
   * store notices. Does nothing when the epoch is another one by now.
   */
  beginEpoch(instead: string): Promise<void>;
  /**
   * Makes all who share the store agree on a value: the first one wins. @returns the agreed value
   */
  agree(key: string, value: string): Promise<string>;
}

/**
 * One life of the store. A new id means that it came back empty or older than it was, and that instances may exist
 * which it never knew. It may change while the store is open: read it anew for every decision.
 */
export interface Epoch {
  readonly id: string;
  readonly createdAt: Date;
}

export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

export interface SandboxStore {
  /** @throws Fault already_exists */
  insert(record: Omit<SandboxRecord, "revision" | "phaseSince">): Promise<SandboxRecord>;
  get(id: SandboxId): Promise<SandboxRecord | undefined>;
  /**
   * Compare-and-set on `current.revision`.
   * @throws Fault aborted when someone else wrote first: re-read and decide again
   */
  update(current: SandboxRecord, change: SandboxChange): Promise<SandboxRecord>;
  /** @throws Fault aborted as update does */
  remove(current: SandboxRecord): Promise<void>;
  list(filter?: SandboxFilter): Promise<readonly SandboxRecord[]>;
  /** Like list, by id and a part at a time, for passes over all: others' work goes on between the parts. */
  scan(phases?: readonly Phase[]): AsyncIterable<readonly SandboxRecord[]>;
  count(phases: readonly Phase[]): Promise<number>;
  /** Calls back after every committed insert and update. @returns the function that ends it */
  watch(listener: (record: SandboxRecord) => void): () => void;
}

export interface SandboxFilter {
  readonly phases?: readonly Phase[];
  readonly nodeId?: string;
}

/** A subject's operations never run side by side, and a less urgent one waits while a more urgent one is due. */
export interface OperationStore {
  /**
   * A lease that is not renewed for this long is over, ms. Undefined: the store has one owner, and its leases last as
   * long as it is open.
   */
  readonly leaseMs: number | undefined;
  /** While one of the same kind and subject is queued or running, that one is returned and nothing is written. */
  submit(operation: NewOperation): Promise<OperationRecord>;
  get(id: OperationId): Promise<OperationRecord | undefined>;
  list(filter?: OperationFilter): Promise<readonly OperationRecord[]>;
  /** The operations to begin now, best first, each with a new lease and state `running`. */
  claim(request: ClaimRequest): Promise<readonly OperationRecord[]>;
  /**
   * Claims this one. Undefined when it is not its turn: it is over, not due, running, or its subject is busy. One that
   * runs under this very store object is given again (its answer may have been lost): ask only for what you do not run.
   */
  begin(id: OperationId): Promise<OperationRecord | undefined>;
  /** Keeps leases alive. @returns the operations that are still held */
  renew(held: readonly HeldLease[]): Promise<readonly OperationRecord[]>;
  /** Notes what an attempt is about to do. @throws Fault aborted when the lease is not the operation's any more */
  note(held: HeldLease, progress: string): Promise<void>;
  /** @throws Fault aborted when the lease is not the operation's any more */
  settle(id: OperationId, lease: number, settlement: Settlement): Promise<OperationRecord>;
  /** Ends a queued one. False when it is running or over. */
  cancelQueued(id: OperationId, reason: string): Promise<boolean>;
  /** Asks whoever runs it to stop. False when it is not running. */
  requestCancel(id: OperationId, reason: string): Promise<boolean>;
  /**
   * Puts back into the queue what nobody works on any more: at start what this adaptor's earlier life left running,
   * at any time what has a lease that is over. @returns how many
   */
  requeueAbandoned(): Promise<number>;
  /** Time of the next queued operation of these kinds, ms since the epoch. */
  nextWake(kinds: readonly string[]): Promise<number | undefined>;
  /** Removes finished operations that ended before `before`. */
  prune(before: Date): Promise<number>;
  /**
   * Calls back when an operation is over, is asked to end, or failed and is queued again with its fault, whoever did it.
   * @returns the function that ends it
   */
  watch(listener: (operation: OperationRecord) => void): () => void;
}

export interface OperationFilter {
  readonly states?: readonly OperationState[];
  readonly subject?: string;
  readonly kind?: string;
  /** Newest first. */
  readonly limit?: number;
}

export interface ClaimRequest {
  /** How many of each kind may be begun, the most urgent kind first. */
  readonly room: ReadonlyMap<string, number>;
}
