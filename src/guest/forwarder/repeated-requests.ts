import { REQUEST_KEY, STREAM_OFFSET } from "../../guestwire/index.ts";
import type { ServerCall, ServiceDefinition, ServiceImplementation } from "../../ttrpc/index.ts";

/** How long a reply is kept for a repetition, and how long a call goes on that nobody waits for, ms. */
const KEPT_MS = 10 * 60_000;
const KEPT_REPLIES = 4096;
/** Of all replies together, bytes: a stock shim reads output without offsets, and each reply is a piece of it. */
const KEPT_BYTES = 8 << 20;

interface Request {
  readonly reply: Promise<unknown>;
  readonly stop: AbortController;
  waiting: number;
  abandoned: NodeJS.Timeout | undefined;
  endedAtMs: number | undefined;
  /** Of the reply's data. */
  bytes: number;
}

type Handler = (request: never, call: ServerCall) => Promise<unknown>;

/**
 * Makes calls repeatable: a client that lost its connection sends the call again under the same request key, and joins
 * the running one or gets the reply that was given, errors included. So nothing is created, signalled or waited for twice.
 * Calls without a key, and stream calls that carry an offset, pass through.
 */
export class RepeatedRequests {
  /** In order of arrival; the oldest ended ones go first. */
  readonly #requests = new Map<string, Request>();
  #bytes = 0;
  readonly #now: () => number;

  /** @param now monotonic clock, ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The same implementation with every method made repeatable. */
  wrap<D extends ServiceDefinition>(implementation: ServiceImplementation<D>): ServiceImplementation<D> {
    const wrapped = Object.entries(implementation as Record<string, Handler>).map(([method, handler]) => [
      method,
      (request: never, call: ServerCall) => this.#call(request, call, handler),
    ]);
    return Object.fromEntries(wrapped) as ServiceImplementation<D>;
  }

  get size(): number {
    return this.#requests.size;
  }

  #call(message: never, call: ServerCall, handler: Handler): Promise<unknown> {
    const key = call.metadata.find(([name]) => name === REQUEST_KEY)?.[1];
    if (key === undefined || call.metadata.some(([name]) => name === STREAM_OFFSET)) return handler(message, call);
    const id = `${call.service}/${call.method}/${key}`;
    const request = this.#requests.get(id) ?? this.#start(id, message, call, handler);
    return this.#join(request, call.signal);
  }

  #start(id: string, message: never, call: ServerCall, handler: Handler): Request {
    this.#forgetOld();
    const stop = new AbortController();
    // The deadline of the first caller does not end the work: the one that repeats brings its own.
    const reply = handler(message, { ...call, signal: stop.signal, timeoutMs: undefined });
    const request: Request = { reply, stop, waiting: 0, abandoned: undefined, endedAtMs: undefined, bytes: 0 };
    const ended = (): void => {
      request.endedAtMs = this.#now();
    };
    reply.then((answer) => {
      ended();
      request.bytes = (answer as { readonly data?: Uint8Array } | undefined)?.data?.byteLength ?? 0;
      this.#bytes += request.bytes;
    }, ended);
    this.#requests.set(id, request);
    return request;
  }

  /** Waits as long as the caller does; a call that all callers have left goes on for a while. */
  async #join(request: Request, signal: AbortSignal): Promise<unknown> {
    clearTimeout(request.abandoned);
    request.waiting += 1;
    const left = Promise.withResolvers<never>();
    const onAbort = (): void => left.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([request.reply, left.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
      request.waiting -= 1;
      if (request.waiting === 0 && request.endedAtMs === undefined) {
        request.abandoned = setTimeout(() => request.stop.abort(), KEPT_MS).unref();
      }
    }
  }

  #forgetOld(): void {
    const since = this.#now() - KEPT_MS;
    let tooMany = this.#requests.size - KEPT_REPLIES;
    for (const [id, request] of this.#requests) {
      const ended = request.endedAtMs;
      if (ended === undefined) continue;
      if (ended >= since && tooMany <= 0 && this.#bytes <= KEPT_BYTES) break;
      this.#requests.delete(id);
      this.#bytes -= request.bytes;
      tooMany -= 1;
    }
  }
}
