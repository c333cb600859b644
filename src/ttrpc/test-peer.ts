/** For the tests of this folder: the other end of a connection, by hand. */

import type { Duplex } from "node:stream";
import { duplexPair } from "node:stream";
import { FrameParser, HEADER_BYTES, writeHeader } from "./frame.ts";

export interface SeenFrame {
  readonly type: number;
  readonly streamId: number;
  readonly body: Buffer;
}

/** Reads frames from a stream and writes whatever it is told to. */
export class TestPeer {
  readonly stream: Duplex;
  /** Everything that was received. */
  bytes: Buffer = Buffer.alloc(0);
  /** Resolves when the other end has ended or destroyed the stream. */
  readonly ended: Promise<void>;
  readonly #frames: SeenFrame[] = [];
  #waiting: ((frame: SeenFrame) => void)[] = [];

  constructor(stream: Duplex) {
    this.stream = stream;
    const parser = new FrameParser({
      onFrame: (type, streamId, body) => {
        const frame = { type, streamId, body };
        const waiting = this.#waiting.shift();
        if (waiting === undefined) this.#frames.push(frame);
        else waiting(frame);
      },
      onOversize: () => undefined,
    });
    this.ended = new Promise((resolve) => {
      stream.on("end", resolve).on("close", resolve);
    });
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      parser.push(chunk);
    });
  }

  /** The next frame, in the order they came. */
  frame(): Promise<SeenFrame> {
    const frame = this.#frames.shift();
    if (frame !== undefined) return Promise.resolve(frame);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /** Writes bytes given as hex; white space is for reading. */
  hex(text: string): void {
    this.stream.write(unhex(text));
  }

  send(type: number, streamId: number, body: Uint8Array): void {
    this.stream.write(frameBytes(type, streamId, body));
  }
}

export function unhex(text: string): Buffer {
  return Buffer.from(text.replace(/\s/g, ""), "hex");
}

export function frameBytes(type: number, streamId: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  writeHeader(bytes, 0, body.length, streamId, type);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/** A stream in memory: what the code under test gets, and a peer at its other end. */
export function pair(): { readonly stream: Duplex; readonly peer: TestPeer } {
  const [stream, other] = duplexPair();
  return { stream, peer: new TestPeer(other) };
}
