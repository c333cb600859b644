import { close as closeFd, constants, fstat as fstatFd, open as openFd, readSync, type Stats } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { Socket } from "node:net";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { Fault } from "../base/fault.ts";
import type { StdioTarget } from "./stdio-uri.ts";

const openRaw = promisify(openFd);
const statRaw = promisify(fstatFd);
const closeRaw = promisify(closeFd);

/** Most that one read hands on, bytes. */
export const CHUNK_BYTES = 1 << 20;

/** What is opened here; programs are started elsewhere. */
export type FileTarget = Exclude<StdioTarget, { readonly kind: "logger" }>;

/** Where a process's output goes. */
export interface StdioSink {
  /** Resolves when the kernel has all of it. @throws Fault when the file is gone or full */
  write(data: Uint8Array): Promise<void>;
  /** Idempotent; a pending write rejects. */
  close(): Promise<void>;
}

/** Where a process's input comes from. */
export interface StdioSource {
  /** Next bytes; undefined = end. A FIFO never ends by itself: another writer may open it any time. */
  read(): Promise<Uint8Array | undefined>;
  /** From now on only what is there already is read, then the end. */
  finish(): void;
  /** Idempotent; a pending read resolves with undefined. */
  close(): Promise<void>;
}

/** Opens an output. FIFOs are opened for both directions: that never blocks, and no reader is no EPIPE. */
export async function openSink(target: FileTarget): Promise<StdioSink> {
  if (target.kind === "none") return { write: async () => undefined, close: async () => undefined };
  if (target.kind === "append") {
    await mkdir(dirname(target.path), { recursive: true, mode: 0o750 });
    return fileSink(await open(target.path, "a", 0o640), target.path);
  }
  const { fd, stats } = await openPath(target.path, constants.O_RDWR);
  if (stats.isFIFO()) return fifoSink(fd, target.path);
  await closeRaw(fd);
  if (stats.isDirectory()) throw notStdio(target.path);
  return fileSink(await open(target.path, "a"), target.path);
}

/**
 * Opens an input. A FIFO is opened for both directions too: its end of file would only mean that no writer has it
 * open now, which a client that has not come yet, or one that detaches, looks like as well. containerd says the end
 * with CloseIO.
 */
export async function openSource(target: FileTarget): Promise<StdioSource | undefined> {
  if (target.kind === "none") return undefined;
  const { fd, stats } = await openPath(target.path, constants.O_RDWR);
  if (stats.isFIFO()) return new FifoSource(fd);
  await closeRaw(fd);
  if (stats.isDirectory()) throw notStdio(target.path);
  return fileSource(await open(target.path, "r"));
}

async function openPath(path: string, flags: number): Promise<{ readonly fd: number; readonly stats: Stats }> {
  try {
    const fd = await openRaw(path, flags | constants.O_NONBLOCK);
    return { fd, stats: await statRaw(fd) };
  } catch (cause) {
    throw new Fault(Fault.from(cause).code, `stdio ${path} cannot be opened`, { path }, { cause });
  }
}

function notStdio(path: string): Fault {
  return new Fault("invalid_argument", `stdio ${path} is a directory: a FIFO or a file is needed`, { path });
}

function fifoSink(fd: number, path: string): StdioSink {
  const socket = new Socket({ fd, readable: false, writable: true });
  let failure: Error | undefined;
  socket.on("error", (e) => {
    failure = e;
  });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return {
    write: (data) =>
      new Promise((resolve, reject) => {
        socket.write(data, (e) => {
          const cause = e ?? failure;
          if (cause === undefined || cause === null) resolve();
          else
            reject(new Fault("unavailable", `stdio ${path} cannot be written`, { path }, { cause, retryable: false }));
        });
      }),
    close: () => {
      socket.destroy();
      return closed;
    },
  };
}

function fileSink(file: FileHandle, path: string): StdioSink {
  let closing: Promise<void> | undefined;
  return {
    write: async (data) => {
      try {
        await file.writeFile(data);
      } catch (cause) {
        throw new Fault(Fault.from(cause).code, `stdio ${path} cannot be written`, { path }, { cause });
      }
    },
    close: () => {
      closing ??= file.close();
      return closing;
    },
  };
}

function fileSource(file: FileHandle): StdioSource {
  let closing: Promise<void> | undefined;
  return {
    read: async () => {
      if (closing !== undefined) return undefined;
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(64 * 1024));
      return bytesRead === 0 ? undefined : buffer.subarray(0, bytesRead);
    },
    finish: () => undefined,
    close: () => {
      closing ??= file.close();
      return closing;
    },
  };
}

/** Reads a FIFO through the event loop; buffers only what came while the last chunk was on its way. */
class FifoSource implements StdioSource {
  readonly #fd: number;
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  #wake: (() => void) | undefined;
  /** Set by finish(): all that will still be read. */
  #rest: Uint8Array[] | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    // net.Socket hands its options on to Duplex, which knows readableHighWaterMark; its own type does not list it.
    const options: ConstructorParameters<typeof Socket>[0] & { readableHighWaterMark: number } = {
      fd,
      readable: true,
      writable: false,
      readableHighWaterMark: CHUNK_BYTES,
    };
    this.#socket = new Socket(options);
    const wake = (): void => {
      this.#wake?.();
      this.#wake = undefined;
    };
    this.#socket.on("readable", wake);
    this.#socket.on("error", wake);
    this.#closed = new Promise((resolve) =>
      this.#socket.once("close", () => {
        wake();
        resolve();
      }),
    );
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#rest !== undefined) return this.#rest.shift();
      if (this.#socket.destroyed) return undefined;
      const chunk = this.#socket.read() as Buffer | null;
      if (chunk !== null) return chunk;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  finish(): void {
    if (this.#rest !== undefined || this.#socket.destroyed) return;
    this.#rest = [];
    for (
      let chunk = this.#socket.read() as Buffer | null;
      chunk !== null;
      chunk = this.#socket.read() as Buffer | null
    ) {
      this.#rest.push(chunk);
    }
    // What the stream has not fetched yet is in the pipe; a pipe holds at most 1 MiB, so this ends.
    for (let left = CHUNK_BYTES; left > 0; ) {
      const buffer = Buffer.allocUnsafe(64 * 1024);
      const bytes = readNow(this.#fd, buffer);
      if (bytes === 0) break;
      this.#rest.push(buffer.subarray(0, bytes));
      left -= bytes;
    }
    this.#wake?.();
  }

  close(): Promise<void> {
    this.#socket.destroy();
    return this.#closed;
  }
}

function readNow(fd: number, buffer: Buffer): number {
  try {
    return readSync(fd, buffer);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "EAGAIN") return 0;
    throw e;
  }
}
