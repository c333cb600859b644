/** The longest delay that a Node timer takes, ms; a longer one would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

const NO_BYTES: Buffer = Buffer.alloc(0);

/** A client's call from the first attempt to send it until its one outcome; what comes later is ignored. */
export class PendingCall {
  readonly service: string;
  readonly method: string;
  payload: Uint8Array = NO_BYTES;
  /** Encoded field 5. */
  metadata: Buffer = NO_BYTES;
  /** 0 until it is sent. */
  streamId = 0;
  settled = false;
  readonly #resolve: (reply: Uint8Array) => void;
  readonly #reject: (reason: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #deadline = 0;
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;

  constructor(
    service: string,
    method: string,
    resolve: (reply: Uint8Array) => void,
    reject: (reason: unknown) => void,
  ) {
    this.service = service;
    this.method = method;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** For messages. */
  get path(): string {
    return `${this.service}/${this.method}`;
  }

  watch(signal: AbortSignal, onAbort: () => void): void {
    this.#signal = signal;
    this.#onAbort = onAbort;
    signal.addEventListener("abort", onAbort, { once: true });
  }

  limit(timeoutMs: number, onLate: () => void): void {
    this.#deadline = performance.now() + timeoutMs;
    if (timeoutMs > MAX_TIMER_MS) return; // more than 24 days: the peer's deadline is enough
    this.#timer = setTimeout(onLate, timeoutMs);
    this.#timer.unref();
  }

  /** Time left for the peer, ms; undefined without a deadline. */
  remainingMs(): number | undefined {
    return this.#deadline === 0 ? undefined : this.#deadline - performance.now();
  }

  sentAs(streamId: number): void {
    this.streamId = streamId;
    this.payload = NO_BYTES; // the writer has it now
    this.metadata = NO_BYTES;
  }

  resolve(reply: Uint8Array): void {
    if (this.#settle()) this.#resolve(reply);
  }

  reject(reason: unknown): void {
    if (this.#settle()) this.#reject(reason);
  }

  #settle(): boolean {
    if (this.settled) return false;
    this.settled = true;
    this.payload = NO_BYTES;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    if (this.#signal !== undefined && this.#onAbort !== undefined)
      this.#signal.removeEventListener("abort", this.#onAbort);
    return true;
  }
}
