import { Socket } from "node:net";
import { ReadStream } from "node:tty";
import { Fault } from "../../base/fault.ts";
import { closeQuietly, makePipe, setWindowSize } from "../system/descriptors.ts";
import { InputStream } from "./input-stream.ts";
import { OutputStream } from "./output-stream.ts";

/** More than the kernel's 64 KiB, so that a writer and this process wake each other less often. */
const PIPE_BYTES = 256 * 1024;

/** The agent's side of a process's standard streams. */
export interface ProcessIo {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  /** Undefined on a terminal: all output comes by stdout. */
  readonly stderr: OutputStream | undefined;
  /** @throws Fault invalid_argument when the process has no terminal */
  resize(rows: number, columns: number): void;
  close(): void;
}

export interface PipeIo {
  readonly io: ProcessIo;
  /** For the runtime; close them with `handedOver` as soon as it has been started. */
  readonly childStdio: readonly [number, number, number];
  handedOver(): void;
}

/** Three pipes. */
export function makePipeIo(): PipeIo {
  const [stdin, stdout, stderr] = [makePipe(PIPE_BYTES), makePipe(PIPE_BYTES), makePipe(PIPE_BYTES)];
  const inSocket = new Socket({ fd: stdin.write, readable: false, writable: true });
  const outSockets = [stdout, stderr].map((pipe) => new Socket({ fd: pipe.read, readable: true, writable: false }));
  const [out, err] = outSockets.map((socket) => new OutputStream(socket)) as [OutputStream, OutputStream];
  const input = new InputStream(inSocket, { closable: true });
  return {
    io: {
      stdin: input,
      stdout: out,
      stderr: err,
      resize: () => {
        throw new Fault("invalid_argument", "the process has no terminal to resize");
      },
      close: () => {
        input.destroy();
        out.close();
        err.close();
      },
    },
    childStdio: [stdin.read, stdout.write, stderr.write],
    handedOver: () => {
      for (const fd of [stdin.read, stdout.write, stderr.write]) closeQuietly(fd);
    },
  };
}

/** A terminal, given the pty's master. */
export function makeTerminalIo(master: number): ProcessIo {
  const terminal = new ReadStream(master);
  let open = true;
  terminal.once("close", () => {
    open = false; // the descriptor's number may belong to something else from now on
  });
  const stdout = new OutputStream(terminal);
  return {
    stdin: new InputStream(terminal, { closable: false }),
    stdout,
    stderr: undefined,
    resize: (rows, columns) => {
      if (open) setWindowSize(master, rows, columns);
    },
    close: () => stdout.close(),
  };
}
