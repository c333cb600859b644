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

/**
 * Decides what becomes of an operation whose attempt did not succeed. What the cloud throttles is not the operation's
 * fault and costs it no attempt; nothing is tried before the time that the fault names (`retryAfterMs`).
 */
export function settlementOf(ending: Ending): Settlement {
  const { operation, cause, now } = ending;
  const fault = recorded(ending.fault, now);
  // Without a limit attempts are counted in any case: a first one is told by its number.
  const uncounted = ending.attempts !== Number.POSITIVE_INFINITY;
  if (cause === "closing") return { state: "queued", wakeAt: now.getTime(), uncounted };
  if (cause === "cancelled") return { state: "cancelled", fault };
  if (!mayRetry(ending)) return { state: "failed", fault };
  const backoff = backoffMs(operation.attempt - 1, BASE_MS, MAX_MS);
  return {
    state: "queued",
    wakeAt: now.getTime() + Math.round(Math.max(backoff, fault.retryAfterMs ?? 0)),
    fault,
    ...(fault.kind === "throttled" ? { uncounted } : {}),
  };
}

/**
 * What must never be given up is tried again whatever the error says: its cause may be repaired any time. Unless its
 * handler knows that there is nothing to finish or to undo any more (`final` in the fault's context).
 */
function mayRetry({ attempts, fault, operation }: Ending): boolean {
  if (attempts === Number.POSITIVE_INFINITY) return fault.context.final !== true;
  if (fault.context.kind === "throttled") return true;
  return fault.retryable && operation.attempt < attempts;
}

function recorded({ code, fullMessage, context, retryable }: Fault, now: Date): RecordedFault {
  const { kind, retryAfterMs } = context;
  return {
    ...{ code, message: fullMessage, at: now.toISOString() },
    ...(typeof kind === "string" ? { kind, retryable } : {}),
    ...(typeof retryAfterMs === "number" ? { retryAfterMs } : {}),
  };
}
