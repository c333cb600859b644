import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { backoffMs, sleep } from "../../base/retry.ts";

/** One try may take this long, ms: a peer that hangs looks like one that is away. */
const TRY_MS = 10_000;
const BASE_MS = 100;
const MAX_MS = 2000;

/**
 * Repeats work that failed for a passing reason (the adaptor restarts) until it succeeds or the call ends.
 * @param what Names the work in the message when time is up, with the address: "CreateVm at unix:///…"
 * @throws Fault what the other side said; unavailable with the last error when the call's deadline passed
 */
export async function patiently<T>(what: string, work: (call: Call) => Promise<T>, call: Call): Promise<T> {
  let last: Fault | undefined;
  for (let attempt = 0; ; attempt++) {
    try {
      return await work(withDeadline(TRY_MS, call));
    } catch (e) {
      const fault = Fault.from(e);
      if (call.signal.aborted) throw outOfTime(what, fault, last);
      if (!isPassing(fault)) throw fault;
      last = fault;
    }
    try {
      await sleep(backoffMs(attempt, BASE_MS, MAX_MS), call);
    } catch (e) {
      throw outOfTime(what, Fault.from(e), last);
    }
  }
}

function outOfTime(what: string, why: Fault, last: Fault | undefined): Fault {
  if (why.code === "cancelled") return why;
  const message = `${what} did not succeed in time: is the adaptor running and reachable?`;
  return new Fault("unavailable", message, {}, { cause: last ?? why, retryable: true });
}

/** Whether a failure may be over by the next try. A call that the other side cancelled, not we, met a server that ends. */
export function isPassing(fault: Fault): boolean {
  return fault.retryable || fault.code === "cancelled";
}
