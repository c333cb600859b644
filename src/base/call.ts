/** Passed last to every function that may wait. */
export interface Call {
  /** Aborts the work; the function rejects with a Fault of code "cancelled" or "deadline_exceeded". */
  readonly signal: AbortSignal;
  /** W3C traceparent of the caller, when there is one. */
  readonly traceparent?: string;
  /** Nobody waits for it (reconcilers, tags): at every limit it goes behind what somebody waits for. */
  readonly background?: boolean;
}

/** A Call that ends after `ms` milliseconds, or earlier with `parent`. */
export function withDeadline(ms: number, parent?: Call): Call {
  const timeout = AbortSignal.timeout(ms);
  const signal = parent === undefined ? timeout : AbortSignal.any([parent.signal, timeout]);
  return {
    signal,
    ...(parent?.traceparent === undefined ? {} : { traceparent: parent.traceparent }),
    ...(parent?.background === undefined ? {} : { background: parent.background }),
  };
}

/** A Call that nothing cancels: for work that must finish whoever stops waiting (clean-up, undo). */
export function background(): Call {
  return { signal: new AbortController().signal };
}
