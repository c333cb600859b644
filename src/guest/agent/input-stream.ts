import { Fault } from "../../base/fault.ts";
import { bytesPassed } from "../system/garbage.ts";

/** What we use of a Node stream that writes to a pipe or a terminal. */
export interface ByteSink {
  write(chunk: Uint8Array, done: (error?: Error | null) => void): unknown;
  end(): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  destroy(): unknown;
}

/**
 * The standard input of a process. Positions count from the process's start, so a write that is repeated after a broken
 * connection is not written twice.
 */
export class InputStream {
  readonly #sink: ByteSink;
  readonly #closable: boolean;
  #accepted = 0;
  #closed = false;
  #broken = false;
  #last: Promise<void> = Promise.resolve();

  /** @param options.closable false for a terminal: it stays open for output, and its end of input is a character */
  constructor(sink: ByteSink, options: { readonly closable: boolean }) {
    this.#sink = sink;
    this.#closable = options.closable;
    sink.on("error", () => {
      this.#broken = true; // EPIPE: the process closed its end or is gone; the next write says so
    });
  }

  /**
   * Resolves when the pipe has taken the bytes. Empty data closes the stream.
   * @param offset position of the first byte; undefined: after the last one
   * @returns bytes of `data` that are written now (all of them)
   * @throws Fault failed_precondition when the stream is closed, invalid_argument for an offset that leaves a gap
   */
  async write(data: Uint8Array, offset: number | undefined): Promise<number> {
    if (data.length === 0) {
      await this.close();
      return 0;
    }
    const skip = offset === undefined ? 0 : this.#accepted - offset;
    if (skip < 0) {
      throw new Fault(
        "invalid_argument",
        `input at offset ${offset} leaves a gap: ${this.#accepted} bytes came before`,
        {},
      );
    }
    if (skip < data.length) {
      if (this.#closed || this.#broken) throw this.#gone();
      const fresh = data.subarray(skip);
      this.#accepted += fresh.length;
      bytesPassed(fresh.length);
      this.#last = this.#write(fresh);
      this.#last.catch(() => undefined); // reported to whoever waits below
    }
    await this.#last; // a repeated write waits for the first one
    return data.length;
  }

  /** Closes it behind everything written before. Repeatable. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last.catch(() => undefined); // whoever wrote it was told
    if (this.#closable) this.#sink.end();
  }

  destroy(): void {
    this.#closed = true;
    if (this.#closable) this.#sink.destroy();
  }

  #write(data: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#sink.write(data, (error) => (error ? reject(this.#gone(error)) : resolve()));
    });
  }

  #gone(cause?: Error): Fault {
    return new Fault("failed_precondition", "the process does not read its standard input any more", {}, { cause });
  }
}
