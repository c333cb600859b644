import { Fault } from "../base/fault.ts";
import { MAX_TIMER_MS } from "./pending-call.ts";
import { faultToStatus, type StatusError } from "./status.ts";
import type { Metadata, ServerCall } from "./types.ts";

/**
 * A request that is being answered, as its handler sees it. The signal is made when somebody asks for it, since most
 * handlers never do; it is a getter, so a spread copy of the call has none.
 */
export class ServedCall implements ServerCall {
  readonly connection: number;
  readonly streamId: number;
  readonly service: string;
  readonly method: string;
  readonly metadata: Metadata;
  readonly timeoutMs: number | undefined;
  /** What it counts for in the connection's limit. */
  readonly payloadBytes: number;
  readonly #deadline: number;
  #controller: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #abortReason: Fault | undefined;
  #done = false;

  constructor(
    origin: { readonly connection: number; readonly streamId: number },
    request: {
      readonly service: string;
      readonly method: string;
      readonly metadata: Metadata;
      readonly payload: Uint8Array;
    },
    timeoutMs: number | undefined,
  ) {
    this.connection = origin.connection;
    this.streamId = origin.streamId;
    this.service = request.service;
    this.method = request.method;
    this.metadata = request.metadata;
    this.payloadBytes = request.payload.length;
    this.timeoutMs = timeoutMs;
    this.#deadline = timeoutMs === undefined ? 0 : performance.now() + timeoutMs;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#abortReason !== undefined) this.#controller.abort(this.#abortReason);
      else if (this.timeoutMs !== undefined && !this.#done) this.#startTimer();
    }
    return this.#controller.signal;
  }

  /** Tells the handler to stop. Without effect when it was told before or has ended. */
  abort(reason: Fault): void {
    if (this.#done || this.#abortReason !== undefined) return;
    this.#abortReason = reason;
    clearTimeout(this.#timer);
    this.#controller?.abort(reason);
  }

  /** The handler has ended: nobody is told anything from here on. */
  finish(): void {
    this.#done = true;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
  }

  /** The status for what the handler threw. An AbortError of its own signal says why the signal was aborted. */
  statusOf(thrown: unknown): StatusError {
    const reason = this.#abortReason;
    if (reason !== undefined && thrown instanceof Error && thrown.name === "AbortError") return faultToStatus(reason);
    return faultToStatus(thrown);
  }

  #startTimer(): void {
    const remainingMs = Math.max(0, this.#deadline - performance.now());
    if (remainingMs > MAX_TIMER_MS) return; // more than 24 days
    this.#timer = setTimeout(() => {
      const message = `${this.service}/${this.method}: the caller's deadline of ${this.timeoutMs} ms passed`;
      this.abort(new Fault("deadline_exceeded", message));
    }, remainingMs);
    this.#timer.unref();
  }
}
