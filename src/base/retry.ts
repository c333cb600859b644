import { setTimeout as delay } from "node:timers/promises";
import type { Call } from "./call.ts";
import { Fault } from "./fault.ts";

/** Exponential back-off with full jitter, ms: `random(0.5..1) * min(maxMs, baseMs * 2^attempt)`. `attempt` starts at 0. */
export function backoffMs(attempt: number, baseMs: number, maxMs: number, random: () => number = Math.random): number {
  return Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30)) * (0.5 + random() / 2);
}

/** Waits `ms`, or rejects with a Fault as soon as the call ends. */
export async function sleep(ms: number, call: Call): Promise<void> {
  try {
    await delay(ms, undefined, { signal: call.signal });
  } catch (cause) {
    throw ended(call, cause);
  }
}

/** The Fault that says why a call ended. */
export function ended(call: Call, cause?: unknown): Fault {
  const reason: unknown = call.signal.reason ?? cause;
  if (reason instanceof Fault) return reason;
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new Fault("deadline_exceeded", "the deadline passed", {}, { cause: reason });
  }
  return new Fault("cancelled", "the caller gave up", {}, { cause: reason });
}

/** Rejects as soon as the call ends, else with what `work` gives. The work itself is not stopped. */
export async function race<T>(work: Promise<T>, call: Call): Promise<T> {
  work.catch(() => undefined); // when the call ends first nobody waits for it, which must not end the process
  if (call.signal.aborted) throw ended(call);
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(ended(call));
  call.signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    call.signal.removeEventListener("abort", onAbort);
  }
}
