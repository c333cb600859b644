import type { Fault } from "../../base/fault.ts";
import { backoffMs } from "../../base/retry.ts";
import type { OperationRecord, RecordedFault, Settlement } from "../store/index.ts";

const BASE_MS = 500;
const MAX_MS = 60_000;

interface Ending {
  readonly operation: OperationRecord;
  readonly fault: Fault;
  /** `closing`: the adaptor's own end cut it short; `cancelled`: someone asked for that. */
  readonly cause: "closing" | "cancelled" | "failed";
  readonly attempts: number;
  readonly now: Date;
}

/** Decides what becomes of an operation whose attempt did not succeed. */
export function settlementOf(ending: Ending): Settlement {
  const { operation, cause, now } = ending;
  const fault: RecordedFault = { code: ending.fault.code, message: ending.fault.fullMessage, at: now.toISOString() };
  if (cause === "closing") return { state: "queued", wakeAt: now.getTime(), uncounted: true };
  if (cause === "cancelled") return { state: "cancelled", fault };
  if (!mayRetry(ending)) return { state: "failed", fault };
  return {
    state: "queued",
    wakeAt: now.getTime() + Math.round(backoffMs(operation.attempt - 1, BASE_MS, MAX_MS)),
    fault,
  };
}

/** What must never be given up is tried again whatever the error says: its cause may be repaired any time. */
function mayRetry({ attempts, fault, operation }: Ending): boolean {
  if (attempts === Number.POSITIVE_INFINITY) return true;
  return fault.retryable && operation.attempt < attempts;
}
