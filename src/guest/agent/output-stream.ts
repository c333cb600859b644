import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { race } from "../../base/retry.ts";
import { bytesPassed } from "../system/garbage.ts";

/** What we use of a Node stream that reads from a pipe or a terminal. */
export interface ByteSource {
  on(event: "data", listener: (chunk: Buffer) => void): unknown;
  on(event: "end" | "close", listener: () => void): unknown;
  on(event: "error", listener: (error: NodeJS.ErrnoException) => void): unknown;
  pause(): unknown;
  resume(): unknown;
  destroy(): unknown;
}

export interface ReadRequest {
  /** Bytes that the reader has got so far; undefined: go on after the last reply (readers that never repeat). */
  readonly offset: number | undefined;
  readonly maxBytes: number;
}

/** Reading from the process stops above this; the process then waits in its write. */
const HIGH_WATER_BYTES = 512 * 1024;
/** Most bytes of one reply: larger ones are no faster and take several times their size of memory on their way. */
const MAX_REPLY_BYTES = 256 * 1024;
/** The stream of an ended process is closed after this much silence, since a grandchild may hold it open for ever. */
const LINGER_MS = 500;

/**
 * What a process has written and nobody has acknowledged yet. Positions count from the process's start, so a reader
 * that lost a reply in a broken connection asks again with the same offset and gets the same bytes.
 */
export class OutputStream {
  readonly #source: ByteSource;
  readonly #chunks: Buffer[] = [];
  /** Position of the first byte kept, and of the byte after the last. */
  #start = 0;
  #end = 0;
  /** Position after the last byte given out. */
  #delivered = 0;
  #finished = false;
  #paused = false;
  #changed = Promise.withResolvers<void>();
  #linger: NodeJS.Timeout | undefined;

  constructor(source: ByteSource) {
    this.#source = source;
    source.on("data", (chunk) => this.#append(chunk));
    source.on("end", () => this.#finish());
    source.on("close", () => this.#finish());
    source.on("error", () => this.#finish()); // EIO: the last holder of the terminal is gone. Others end it as well
  }

  /**
   * Bytes from the offset on, at least one; none at the end of the stream.
   * @throws Fault invalid_argument for an offset whose bytes were acknowledged before or do not exist yet; cancelled
   */
  async read(request: ReadRequest, call: Call): Promise<Uint8Array> {
    const maxBytes = Math.min(MAX_REPLY_BYTES, Math.max(1, request.maxBytes));
    for (;;) {
      const from = request.offset ?? this.#delivered;
      if (from < this.#start || from > this.#end) {
        throw new Fault(
          "invalid_argument",
          `output at offset ${from} is not here: bytes ${this.#start} to ${this.#end} are; the reader counted wrongly`,
          { offset: from },
        );
      }
      this.#acknowledge(from);
      if (this.#end > from || this.#finished) return this.#take(maxBytes);
      await race(this.#changed.promise, call);
    }
  }

  /** The process is gone: what is in the pipe is still read, then the stream ends even if somebody holds it open. */
  processEnded(): void {
    if (this.#finished) return;
    this.#linger ??= setTimeout(() => {
      if (this.#paused) this.#linger?.refresh();
      else this.#finish();
    }, LINGER_MS).unref();
  }

  close(): void {
    this.#finish();
  }

  #append(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#end += chunk.length;
    if (this.#end - this.#start > HIGH_WATER_BYTES && !this.#paused) {
      this.#paused = true;
      this.#source.pause();
    }
    this.#linger?.refresh();
    this.#wake();
  }

  #acknowledge(position: number): void {
    while (this.#chunks[0] !== undefined && this.#start + this.#chunks[0].length <= position) {
      this.#start += this.#chunks[0].length;
      this.#chunks.shift();
    }
    const head = this.#chunks[0];
    if (head !== undefined && this.#start < position) {
      this.#chunks[0] = head.subarray(position - this.#start);
      this.#start = position;
    }
    if (this.#paused && this.#end - this.#start <= HIGH_WATER_BYTES / 2) {
      this.#paused = false;
      this.#source.resume();
    }
  }

  /** From #start on: it was just acknowledged up to there. */
  #take(maxBytes: number): Uint8Array {
    const length = Math.min(maxBytes, this.#end - this.#start);
    bytesPassed(length);
    this.#delivered = this.#start + length;
    const head = this.#chunks[0];
    if (head === undefined) return new Uint8Array(0);
    if (head.length >= length) return head.subarray(0, length);
    const parts: Buffer[] = [];
    for (let i = 0, left = length; left > 0; i += 1) {
      const part = (this.#chunks[i] as Buffer).subarray(0, left);
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts, length);
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    clearTimeout(this.#linger);
    this.#source.destroy();
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
