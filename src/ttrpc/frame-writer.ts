import type { Duplex } from "node:stream";
import {
  encodeErrorResponse,
  payloadHeadBytes,
  requestTailBytes,
  writeRequestHead,
  writeRequestTail,
  writeResponseHead,
} from "./envelope.ts";
import { FrameType, HEADER_BYTES, MAX_BODY_BYTES, writeHeader } from "./frame.ts";
import { Code, StatusError } from "./status.ts";

/** Small frames of all connections are put together here; a new slab is made when one is full. */
const SLAB_BYTES = 64 << 10;
/** A payload up to this is copied behind its header, a longer one is handed to the stream as it is. */
const INLINE_BYTES = 8 << 10;
/** This much is not held back until the end of the tick. */
const FLUSH_BYTES = 256 << 10;

const NO_BYTES: Buffer = Buffer.alloc(0);

let slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
let slabUsed = 0;

/**
 * Encodes frames straight into a shared slab and gives the stream everything of one tick at once: one write, one system
 * call for many small frames, no allocation per frame.
 */
export class FrameWriter {
  readonly #stream: Duplex;
  readonly #onWritten: () => void;
  readonly #flush = (): void => this.flush();
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  /** The run of frames being put together: `#run[#start..#end]`, where `#run` is a slab. */
  #run: Buffer = NO_BYTES;
  #start = 0;
  #end = 0;
  #scheduled = false;

  /** `onWritten` is called whenever the stream was given something: the moment to look whether it is congested. */
  constructor(stream: Duplex, onWritten: () => void = () => undefined) {
    this.#stream = stream;
    this.#onWritten = onWritten;
  }

  /** Bytes taken by write and not yet by the system. */
  get pendingBytes(): number {
    return this.#pieceBytes + (this.#end - this.#start) + this.#stream.writableLength;
  }

  /**
   * @param target fields 1 and 2, from encodeTarget
   * @param payload not to be changed afterwards
   * @param timeout ns, 0: none
   * @throws StatusError resource_exhausted when it is larger than a peer takes; nothing is written
   */
  request(streamId: number, target: Buffer, payload: Uint8Array, timeout: number, metadata: Buffer): void {
    const length = payload.length;
    const tailBytes = requestTailBytes(timeout, metadata);
    const headBytes = target.length + payloadHeadBytes(length);
    const bodyBytes = headBytes + length + tailBytes;
    if (bodyBytes > MAX_BODY_BYTES) throw tooLarge("request", bodyBytes);
    const inline = length <= INLINE_BYTES;
    let at = this.#reserve(HEADER_BYTES + headBytes + (inline ? length + tailBytes : 0));
    writeHeader(this.#run, at, bodyBytes, streamId, FrameType.request);
    at = writeRequestHead(this.#run, at + HEADER_BYTES, target, length);
    if (inline) {
      if (length > 0) this.#run.set(payload, at);
      at += length;
    } else {
      this.#push(payload);
      if (tailBytes > 0) at = this.#reserve(tailBytes);
    }
    if (tailBytes > 0) writeRequestTail(this.#run, at, timeout, metadata);
    this.#schedule();
  }

  /**
   * @param payload not to be changed afterwards
   * @throws StatusError resource_exhausted when it is larger than a peer takes; nothing is written
   */
  response(streamId: number, payload: Uint8Array): void {
    const length = payload.length;
    const headBytes = payloadHeadBytes(length);
    const bodyBytes = headBytes + length;
    if (bodyBytes > MAX_BODY_BYTES) throw tooLarge("response", bodyBytes);
    const inline = length <= INLINE_BYTES;
    let at = this.#reserve(HEADER_BYTES + headBytes + (inline ? length : 0));
    writeHeader(this.#run, at, bodyBytes, streamId, FrameType.response);
    at = writeResponseHead(this.#run, at + HEADER_BYTES, length);
    if (!inline) this.#push(payload);
    else if (length > 0) this.#run.set(payload, at);
    this.#schedule();
  }

  /** A status too large for a frame loses its details and the end of its message rather than the call its answer. */
  error(streamId: number, error: StatusError): void {
    let body = encodeErrorResponse(error);
    if (body.length > MAX_BODY_BYTES) {
      body = encodeErrorResponse(new StatusError(error.code, `${error.message.slice(0, 64 << 10)} (cut off)`));
    }
    const at = this.#reserve(HEADER_BYTES);
    writeHeader(this.#run, at, body.length, streamId, FrameType.response);
    this.#push(body);
    this.#schedule();
  }

  /** Gives the stream what was put together so far. */
  flush(): void {
    this.#scheduled = false;
    this.#closeRun();
    this.#run = NO_BYTES; // an idle connection must not keep a slab alive
    const pieces = this.#pieces;
    if (pieces.length === 0) return;
    this.#pieces = [];
    this.#pieceBytes = 0;
    const stream = this.#stream;
    if (stream.destroyed || stream.writableEnded) return; // the connection is gone, and with it who would read this
    if (pieces.length === 1) stream.write(pieces[0]);
    else {
      stream.cork();
      for (const piece of pieces) stream.write(piece);
      stream.uncork();
    }
    this.#onWritten();
  }

  #schedule(): void {
    if (this.#pieceBytes >= FLUSH_BYTES) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#flush);
    }
  }

  /** Makes `bytes` contiguous bytes part of the run and returns where they start in it. */
  #reserve(bytes: number): number {
    if (this.#run === slab && this.#end === slabUsed && slabUsed + bytes <= SLAB_BYTES) {
      slabUsed += bytes;
      this.#end = slabUsed;
      return slabUsed - bytes;
    }
    this.#closeRun();
    if (bytes > SLAB_BYTES >> 2) {
      this.#run = Buffer.allocUnsafeSlow(bytes);
      this.#start = 0;
      this.#end = bytes;
      return 0;
    }
    if (slabUsed + bytes > SLAB_BYTES) {
      slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      slabUsed = 0;
    }
    this.#run = slab;
    this.#start = slabUsed;
    slabUsed += bytes;
    this.#end = slabUsed;
    return this.#start;
  }

  #closeRun(): void {
    if (this.#end > this.#start) {
      this.#pieces.push(this.#run.subarray(this.#start, this.#end));
      this.#pieceBytes += this.#end - this.#start;
    }
    this.#start = this.#end;
  }

  #push(bytes: Uint8Array): void {
    this.#closeRun();
    this.#pieces.push(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    this.#pieceBytes += bytes.length;
  }
}

function tooLarge(what: string, bytes: number): StatusError {
  return new StatusError(
    Code.resourceExhausted,
    `the ${what} is ${bytes} bytes long, ${MAX_BODY_BYTES} is the limit of ttrpc`,
  );
}
