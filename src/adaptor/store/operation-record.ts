import type { OperationId } from "../../base/ids.ts";
import type { RecordedFault } from "./sandbox-record.ts";

export type OperationState = "queued" | "running" | "done" | "failed" | "cancelled";

/** One durable piece of work. Everything about it is here; a queue only says when to look at it. */
export interface OperationRecord {
  readonly id: OperationId;
  readonly kind: string;
  /** What it works on: operations of one subject never run side by side. */
  readonly subject: string;
  readonly input: Readonly<Record<string, string>>;
  readonly state: OperationState;
  /** Lower goes first. */
  readonly priority: number;
  /** How many times it has been begun. */
  readonly attempt: number;
  /** Not before this time, ms since the epoch. */
  readonly wakeAt: number;
  /** Fencing token: a new one with every attempt. Only its holder may settle the operation. 0 = never begun. */
  readonly lease: number;
  /** What the running attempt said it is about to do. */
  readonly progress?: string;
  /** Set when it was asked to end while it ran: whoever runs it stops, and it is not tried again. */
  readonly cancelReason?: string;
  /** RFC 3339, as finishedAt. */
  readonly submittedAt: string;
  readonly finishedAt?: string;
  /** Of the last attempt that failed. */
  readonly fault?: RecordedFault;
}

/** Proof of being the one that runs an operation. */
export interface HeldLease {
  readonly id: OperationId;
  readonly lease: number;
}

export type NewOperation = Pick<OperationRecord, "id" | "kind" | "subject" | "input" | "priority">;

/** What becomes of an operation when an attempt ends. */
export type Settlement =
  | { readonly state: "done" }
  | { readonly state: "failed" | "cancelled"; readonly fault: RecordedFault }
  /** Another attempt at `wakeAt`; one that the adaptor's own end cut short does not count (`uncounted`). */
  | { readonly state: "queued"; readonly wakeAt: number; readonly fault?: RecordedFault; readonly uncounted?: boolean };
