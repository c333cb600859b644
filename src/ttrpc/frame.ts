/**
 * A frame is a 10-byte header and a body: u32 body length, u32 stream id (both big endian), u8 type, u8 flags.
 * Source: containerd/ttrpc PROTOCOL.md "Message Frame"; channel.go (v1.2.7).
 */
export const HEADER_BYTES = 10;

/** Largest body, bytes. A longer one is read to its end, dropped, and its call fails with resource_exhausted. */
export const MAX_BODY_BYTES = 4 << 20;

/** Largest stream id. Ids of one connection are odd, ascending and never used again. */
export const MAX_STREAM_ID = 0xffff_ffff;

export const FrameType = { request: 1, response: 2, data: 3 } as const;

const NO_BYTES: Buffer = Buffer.alloc(0);

/** What a parser gives its frames to. Neither function may throw. */
export interface FrameSink {
  /** `body` may be a view of the bytes that were read: whoever keeps it keeps the chunk. */
  onFrame(type: number, streamId: number, body: Buffer): void;
  /** A body over MAX_BODY_BYTES has been read to its end and dropped. */
  onOversize(type: number, streamId: number, bodyBytes: number): void;
}

/** Writes a header at `at` of `target`; unary frames have no flags. */
export function writeHeader(target: Uint8Array, at: number, bodyBytes: number, streamId: number, type: number): void {
  target[at] = bodyBytes >>> 24;
  target[at + 1] = bodyBytes >>> 16;
  target[at + 2] = bodyBytes >>> 8;
  target[at + 3] = bodyBytes;
  target[at + 4] = streamId >>> 24;
  target[at + 5] = streamId >>> 16;
  target[at + 6] = streamId >>> 8;
  target[at + 7] = streamId;
  target[at + 8] = type;
  target[at + 9] = 0;
}

/**
 * Cuts a byte stream into frames, however it is split. A body that lies within one chunk is not copied, any other is
 * copied once. Memory: one unfinished body (at most MAX_BODY_BYTES), and while paused what was pushed since.
 */
export class FrameParser {
  readonly #sink: FrameSink;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerFilled = 0;
  /** The unfinished body, and how much of it is there. */
  #body: Buffer | undefined;
  #bodyFilled = 0;
  /** Bytes of an oversize body still to drop. */
  #skip = 0;
  #length = 0;
  #streamId = 0;
  #type = 0;
  #paused = false;
  #held: Buffer[] = [];

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** @throws Error when the bytes cannot be ttrpc; the parser is of no use afterwards */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#parse(bytes);
  }

  /** No frame is handed out after the current one; bytes pushed meanwhile are kept. */
  pause(): void {
    this.#paused = true;
  }

  /** Hands out what was held. Check `paused` afterwards: the sink may have paused again. */
  resume(): void {
    this.#paused = false;
    if (this.#held.length === 0) return;
    const held = this.#held;
    this.#held = [];
    for (const chunk of held) this.push(chunk);
  }

  get paused(): boolean {
    return this.#paused;
  }

  #parse(chunk: Buffer): void {
    const end = chunk.length;
    let at = 0;
    while (at < end) {
      if (this.#paused) {
        this.#held.push(chunk.subarray(at));
        return;
      }
      if (this.#skip > 0) at = this.#drop(at, end);
      else if (this.#body !== undefined) at = this.#fillBody(this.#body, chunk, at);
      else if (this.#headerFilled === 0 && end - at >= HEADER_BYTES)
        at = this.#startBody(chunk, at + HEADER_BYTES, chunk, at);
      else {
        const part = Math.min(HEADER_BYTES - this.#headerFilled, end - at);
        chunk.copy(this.#header, this.#headerFilled, at, at + part);
        this.#headerFilled += part;
        at += part;
        if (this.#headerFilled < HEADER_BYTES) return;
        this.#headerFilled = 0;
        at = this.#startBody(chunk, at, this.#header, 0);
      }
    }
  }

  /** Reads the header at `h` of `header`; the body starts at `at` of `chunk`. Returns where to go on. */
  #startBody(chunk: Buffer, at: number, header: Buffer, h: number): number {
    const length = header.readUInt32BE(h);
    const streamId = header.readUInt32BE(h + 4);
    const type = header[h + 8] as number;
    if (length <= MAX_BODY_BYTES && chunk.length - at >= length) {
      this.#sink.onFrame(type, streamId, length === 0 ? NO_BYTES : chunk.subarray(at, at + length));
      return at + length;
    }
    this.#length = length;
    this.#streamId = streamId;
    this.#type = type;
    if (length > MAX_BODY_BYTES) {
      if (type < FrameType.request || type > FrameType.data) {
        // No peer may send this: it is another protocol (an HTTP client, say), and dropping a GiB would hide that.
        throw new Error(`not a ttrpc frame: type ${type}, ${length} bytes`);
      }
      this.#skip = length;
      return at;
    }
    // Not touched before it is filled, so a peer that only announces a body costs address space, not memory.
    this.#body = Buffer.allocUnsafe(length);
    this.#bodyFilled = 0;
    return at;
  }

  #fillBody(body: Buffer, chunk: Buffer, at: number): number {
    const part = Math.min(body.length - this.#bodyFilled, chunk.length - at);
    chunk.copy(body, this.#bodyFilled, at, at + part);
    this.#bodyFilled += part;
    if (this.#bodyFilled === body.length) {
      this.#body = undefined;
      this.#sink.onFrame(this.#type, this.#streamId, body);
    }
    return at + part;
  }

  #drop(at: number, end: number): number {
    const part = Math.min(this.#skip, end - at);
    this.#skip -= part;
    if (this.#skip === 0) this.#sink.onOversize(this.#type, this.#streamId, this.#length);
    return at + part;
  }
}
