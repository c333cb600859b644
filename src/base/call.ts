/** Passed last to every function that may wait. */
export interface Call {
  /** Aborts the work; the function rejects with a Fault of code "cancelled" or "deadline_exceeded". */
  readonly signal: AbortSignal;
  /** W3C traceparent of the caller, when there is one. */
  readonly traceparent?: string;
  /** Nobody waits for it (reconcilers, tags): at every limit it goes behind what somebody waits for. */
  readonly background?: boolean;
  /** Names the request that this is done for: the same work under the same key, by whichever process, is done once. */
  readonly requestKey?: string;
}

/** A Call that ends after `ms` milliseconds, or earlier with `parent`. */
export function withDeadline(ms: number, parent?: Call): Call {
  const timeout = AbortSignal.timeout(ms);
  const signal = parent === undefined ? timeout : AbortSignal.any([parent.signal, timeout]);
  return { ...parent, signal };
}

/** A Call that nothing cancels: for work that must finish whoever stops waiting (clean-up, undo). */
export function background(): Call {
  return { signal: new AbortController().signal };
}
