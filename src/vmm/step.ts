import { type Call, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { race } from "../base/retry.ts";

/**
 * Does one step of a VM's start within a time of its own: the start's deadline is minutes away, and its message would
 * not say what was waited for.
 * @throws Fault unavailable naming the step when its own time is over; else what `work` or the call's end says
 */
export async function step<T>(what: string, ms: number, call: Call, work: (call: Call) => Promise<T>): Promise<T> {
  const bounded = withDeadline(ms, call);
  try {
    return await race(work(bounded), bounded);
  } catch (cause) {
    if (call.signal.aborted || !bounded.signal.aborted) throw cause;
    const message = `${what} did not succeed within ${ms / 1000} s: is this host overloaded?`;
    throw new Fault("unavailable", message, { step: what }, { cause });
  }
}
