import { type Call, withDeadline } from "../base/call.ts";
import { race } from "../base/retry.ts";
import { ReadStreamRequest } from "../gen/agent/agent.ts";
import { delimited, type ServerCall, type UnaryCaller, WireReader } from "../ttrpc/index.ts";

const METHODS: ReadonlySet<string> = new Set(["ReadStdout", "ReadStderr"]);
/** Asked of the guest at once. Our guest gives no more than a quarter of it; a stock one is faster with it. */
const CHUNK_BYTES = 1 << 20;
/** ReadStreamResponse.data, `number << 3 | 2` on the wire. Source: proto/agent/agent.proto */
const DATA_FIELD = 1;
const DATA_TAG = 0x0a;
/** Replies that were as long as asked for, one after the other, before a stream counts as busy. */
const BUSY_AFTER = 2;

interface Ahead {
  /** Read and not handed out, none of them empty. */
  readonly ready: Buffer[];
  /** The one read that is on its way; it never rejects: how it ended stands in the stream. */
  pending: Promise<void> | undefined;
  /** What the guest said at last: the end of the stream, or why it cannot be read. */
  end: { readonly error?: unknown } | undefined;
  /** Readers go one after the other, in the order in which they came. */
  turn: Promise<unknown>;
}

/**
 * Reads a busy stream's output before the shim asks for it. A stock shim reads 32 KiB at a time and waits for each: the
 * way to the guest then costs more than the bytes. Streams with little output are read as the shim asks, byte for byte;
 * one read is on its way for each busy one, and at most two chunks are kept.
 */
export class ReadAhead {
  readonly #guest: UnaryCaller;
  readonly #life = new AbortController();
  readonly #full = new Map<string, number>();
  readonly #ahead = new Map<string, Ahead>();

  constructor(guest: UnaryCaller) {
    this.#guest = guest;
  }

  /** Whether a method reads a stream. */
  takes(method: string): boolean {
    return METHODS.has(method);
  }

  /** @throws what the guest answered; MalformedMessage */
  async read(payload: Uint8Array, call: ServerCall): Promise<Uint8Array> {
    const { containerId, execId, len } = ReadStreamRequest.decode(payload);
    const key = `${call.method}/${containerId}/${execId}`;
    const busy = this.#ahead.get(key);
    if (busy !== undefined) return this.#serve(key, busy, { containerId, execId, len }, call);
    const reply = await this.#guest.call(call.service, call.method, payload, call);
    // Decoding copies: a reply is judged by its length, and its few bytes around the data do not matter.
    this.#note(key, len > 0 && reply.byteLength >= len);
    return reply;
  }

  /** Ends what is on its way. */
  close(): void {
    this.#life.abort();
    this.#ahead.clear();
    this.#full.clear();
  }

  #note(key: string, full: boolean): void {
    const count = full ? (this.#full.get(key) ?? 0) + 1 : 0;
    if (count === 0) this.#full.delete(key);
    else if (count < BUSY_AFTER) this.#full.set(key, count);
    else {
      this.#full.delete(key);
      this.#ahead.set(key, { ready: [], pending: undefined, end: undefined, turn: Promise.resolve() });
    }
  }

  async #serve(key: string, stream: Ahead, request: ReadStreamRequest, call: ServerCall): Promise<Uint8Array> {
    const before = stream.turn;
    const mine = Promise.withResolvers<void>();
    stream.turn = mine.promise;
    try {
      await before;
      return await this.#next(key, stream, request, call);
    } finally {
      mine.resolve();
    }
  }

  async #next(key: string, stream: Ahead, request: ReadStreamRequest, call: ServerCall): Promise<Uint8Array> {
    while (stream.ready.length === 0 && stream.end === undefined) {
      this.#fetch(stream, request, call);
      const bounded: Call = call.timeoutMs === undefined ? call : withDeadline(call.timeoutMs, call);
      // Whoever gives up leaves the bytes for the next reader.
      await race(stream.pending ?? Promise.resolve(), bounded);
    }
    if (stream.ready.length === 0) {
      if (this.#ahead.get(key) === stream) this.#ahead.delete(key);
      if (stream.end?.error !== undefined) throw stream.end.error;
      return new Uint8Array();
    }
    const data = take(stream.ready, Math.max(1, request.len));
    if (stream.ready.length < 2) this.#fetch(stream, request, call);
    return delimited(DATA_FIELD, data);
  }

  #fetch(stream: Ahead, request: ReadStreamRequest, { service, method, metadata }: ServerCall): void {
    if (stream.pending !== undefined || stream.end !== undefined) return;
    const payload = ReadStreamRequest.encode({ ...request, len: CHUNK_BYTES }).finish();
    const options = { signal: this.#life.signal, metadata };
    stream.pending = this.#guest
      .call(service, method, payload, options)
      .then((reply) => {
        const data = dataOf(reply);
        if (data.length === 0) stream.end = {};
        else stream.ready.push(data);
      })
      .catch((error: unknown) => {
        stream.end = { error };
      })
      .finally(() => {
        stream.pending = undefined;
      });
  }
}

/** A view of the reply's data: the generated decoder would copy it. @throws MalformedMessage */
function dataOf(reply: Uint8Array): Buffer {
  const reader = new WireReader(Buffer.from(reply.buffer, reply.byteOffset, reply.byteLength));
  let data: Buffer = Buffer.alloc(0);
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === DATA_TAG) data = reader.bytes();
    else reader.skip(tag);
  }
  return data;
}

/** The first bytes, of one piece where that is enough. */
function take(pieces: Buffer[], maxBytes: number): Buffer {
  const [first = Buffer.alloc(0)] = pieces;
  const data = first.subarray(0, maxBytes);
  if (data.length === first.length) pieces.shift();
  else pieces[0] = first.subarray(data.length);
  return data;
}
