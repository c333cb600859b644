import type { OperationId, SandboxId } from "../../base/ids.ts";
import type { NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
import type { Phase, SandboxChange, SandboxRecord } from "./sandbox-record.ts";

/**
 * Durable memory of the adaptor. A promise resolves when the change is on disk; changes asked for in one turn of the
 * event loop reach the disk together or not at all.
 */
export interface AdaptorStore extends AsyncDisposable {
  readonly epoch: Epoch;
  readonly sandboxes: SandboxStore;
  readonly operations: OperationStore;
  readonly nodes: NodeStore;
}

/** One life of the store. A new id means that it came back empty, and that instances may exist which it never knew. */
export interface Epoch {
  readonly id: string;
  readonly createdAt: Date;
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
  count(phases: readonly Phase[]): Promise<number>;
  /** Calls back after every committed insert and update. @returns the function that ends it */
  watch(listener: (record: SandboxRecord) => void): () => void;
}

export interface SandboxFilter {
  readonly phases?: readonly Phase[];
  readonly nodeId?: string;
}

export interface OperationStore {
  /** While one of the same kind and subject is queued or running, that one is returned and nothing is written. */
  submit(operation: NewOperation): Promise<OperationRecord>;
  get(id: OperationId): Promise<OperationRecord | undefined>;
  list(filter?: OperationFilter): Promise<readonly OperationRecord[]>;
  /** The operations to begin now, best first, each with a new lease and state `running`. */
  claim(request: ClaimRequest): Promise<readonly OperationRecord[]>;
  /** @throws Fault aborted when the lease is not the operation's any more */
  settle(id: OperationId, lease: number, settlement: Settlement): Promise<OperationRecord>;
  /** Ends a queued one. False when it is running or over. */
  cancelQueued(id: OperationId, reason: string): Promise<boolean>;
  /** Puts every running operation back into the queue: at start, when nobody can be working on one. */
  requeueRunning(): Promise<number>;
  /** Time of the next queued operation of these kinds, ms since the epoch. */
  nextWake(kinds: readonly string[]): Promise<number | undefined>;
  /** Removes finished operations that ended before `before`. */
  prune(before: Date): Promise<number>;
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
  /** Subjects that are being worked on. */
  readonly busy: ReadonlySet<string>;
}

export interface NodeStore {
  /** Notes that a node reported. @returns its boot id before, undefined for a new node */
  report(nodeId: string, bootId: string): Promise<string | undefined>;
}
