import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { Fault } from "../base/fault.ts";
import type { StdioSink } from "./stdio-files.ts";

export interface LoggerSpec {
  readonly path: string;
  readonly args: readonly string[];
  readonly containerId: string;
  readonly namespace: string;
}

/** How long a logger may take to say that it is ready, to end after the last byte, and after SIGTERM, ms. */
const READY_MS = 10_000;
const END_MS = 5_000;
const TERM_MS = 7_000;

/**
 * A program that takes a container's output: stdout on its descriptor 3, stderr on 4; closing 5 says that it is ready.
 * It sees the end of both, gets SIGTERM when it goes on after that, and SIGKILL 12 s after the end.
 * Source: containerd runtime/v2/shim NewBinaryIO and runtime/v2/logging.
 */
export class StdioLogger {
  readonly stdout: StdioSink;
  readonly stderr: StdioSink;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(spec: LoggerSpec, child: ChildProcess) {
    this.#child = child;
    this.#ended = once(child, "close").catch(() => undefined); // an error: it never ran
    const [, , , out, err] = child.stdio as unknown as readonly Writable[];
    this.stdout = sink(out as Writable, spec.path);
    this.stderr = sink(err as Writable, spec.path);
  }

  /** @throws Fault failed_precondition when the program cannot be run or ends before it is ready */
  static async start(spec: LoggerSpec): Promise<StdioLogger> {
    const child = spawn(spec.path, spec.args, {
      env: { CONTAINER_ID: spec.containerId, CONTAINER_NAMESPACE: spec.namespace },
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe", "pipe"],
    });
    const logger = new StdioLogger(spec, child);
    try {
      await ready(child, spec.path);
      return logger;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  /** Nothing comes any more; resolves at once, the program may take its time. */
  async close(): Promise<void> {
    await Promise.all([this.stdout.close(), this.stderr.close()]);
    const after = (ms: number, signal: NodeJS.Signals): NodeJS.Timeout =>
      setTimeout(() => this.#child.kill(signal), ms).unref();
    const timers = [after(END_MS, "SIGTERM"), after(END_MS + TERM_MS, "SIGKILL")];
    void this.#ended.then(() => timers.forEach(clearTimeout));
  }
}

async function ready(child: ChildProcess, path: string): Promise<void> {
  const failed = (why: string, cause?: unknown): Fault =>
    new Fault("failed_precondition", `logger ${path} ${why}`, { path }, { cause, retryable: false });
  const said = (child.stdio as unknown as readonly Readable[])[5] as Readable;
  await new Promise<void>((resolve, reject) => {
    child.once("error", (cause) => reject(failed("cannot be run", cause)));
    child.once("exit", (code) => reject(failed(`ended with ${code} before it was ready`)));
    said.once("data", () => resolve());
    said.once("end", () => resolve());
    setTimeout(
      () => reject(failed(`was not ready after ${READY_MS / 1_000} s: it must close descriptor 5`)),
      READY_MS,
    ).unref();
  });
}

function sink(stream: Writable, path: string): StdioSink {
  let failure: Error | undefined;
  stream.on("error", (e) => {
    failure = e;
  });
  return {
    write: (data) =>
      new Promise((resolve, reject) => {
        stream.write(data, (e) => {
          const cause = e ?? failure;
          if (cause === undefined || cause === null) resolve();
          else reject(new Fault("unavailable", `logger ${path} takes no output any more`, { path }, { cause }));
        });
      }),
    close: async () => {
      stream.end();
    },
  };
}
