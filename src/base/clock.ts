import type { Call } from "./call.ts";
import { Fault } from "./fault.ts";
import { ended } from "./retry.ts";

/** Time for code that waits: the machine's own, or one that a simulation moves. */
export interface Clock {
  now(): Date;
  /**
   * Calls back once, after `ms`.
   * @param options.guard the timer only guards something and keeps no process alive
   * @returns the function that calls it off
   */
  after(ms: number, work: () => void, options?: { readonly guard?: boolean }): () => void;
}

/** Longest timer that Node has, ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const realClock: Clock = {
  now: () => new Date(),
  after(ms, work, { guard = false } = {}) {
    const timer = setTimeout(work, Math.min(ms, MAX_TIMER_MS));
    if (guard) timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Waits `ms` of the clock's time, or rejects with a Fault as soon as the call ends. */
export function sleepOn(clock: Clock, ms: number, call: Call): Promise<void> {
  if (call.signal.aborted) return Promise.reject(ended(call));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = clock.after(ms, () => {
    call.signal.removeEventListener("abort", onAbort);
    resolve();
  });
  const onAbort = (): void => {
    cancel();
    reject(ended(call));
  };
  call.signal.addEventListener("abort", onAbort, { once: true });
  return promise;
}

/** Aborts after `ms` of the clock's time with a Fault deadline_exceeded, unless it is called off. */
export function deadlineOn(clock: Clock, ms: number): { readonly signal: AbortSignal; cancel(): void } {
  const controller = new AbortController();
  const passed = (): void => controller.abort(new Fault("deadline_exceeded", "the deadline passed"));
  return { signal: controller.signal, cancel: clock.after(ms, passed, { guard: true }) };
}
