import type { Call } from "../base/call.ts";
import { type Deferred, deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { race } from "../base/retry.ts";
import {
  AgentServiceDefinition,
  CloseStdinRequest,
  ReadStreamRequest,
  ReadStreamResponse,
  WaitProcessRequest,
  WaitProcessResponse,
  WriteStreamRequest,
  WriteStreamResponse,
} from "../gen/agent/agent.ts";
import type { UnaryCaller } from "../ttrpc/index.ts";
import { type ProcessExit, STREAM_OFFSET, type StdioSpec } from "./relay.ts";
import { CHUNK_BYTES, type FileTarget, openSink, openSource, type StdioSink, type StdioSource } from "./stdio-files.ts";
import { StdioLogger } from "./stdio-logger.ts";
import { parseStdio } from "./stdio-uri.ts";

const SERVICE = AgentServiceDefinition.fullName;

/** Copies between one process in a guest and containerd's FIFOs. */
export class Stdio {
  readonly #spec: StdioSpec;
  readonly #guest: UnaryCaller;
  readonly #log: Logger;
  readonly #detached = new AbortController();
  readonly #stdinDone: Deferred<void> = deferred();
  readonly #open: { close(): Promise<void> }[] = [];
  #source: StdioSource | undefined;
  #output: Promise<unknown> = Promise.resolve();
  readonly #gaveUp: Deferred<void> = deferred();
  readonly #exit: Deferred<ProcessExit> = deferred();

  private constructor(spec: StdioSpec, deps: { readonly guest: UnaryCaller; readonly log: Logger }) {
    this.#spec = spec;
    this.#guest = deps.guest;
    this.#log = deps.log.child({ sandbox: spec.sandboxId, container: spec.containerId, exec: spec.execId });
  }

  /**
   * Opens all three streams, then starts to copy.
   * @throws Fault not_found | invalid_argument | unimplemented naming the stream that cannot be opened
   */
  static async attach(spec: StdioSpec, deps: { readonly guest: UnaryCaller; readonly log: Logger }): Promise<Stdio> {
    const stdio = new Stdio(spec, deps);
    try {
      await stdio.#start();
      return stdio;
    } catch (e) {
      await stdio.detach();
      throw e;
    }
  }

  /** Resolves when stdout and stderr have ended and all of it is written; never rejects. */
  async drained(): Promise<void> {
    await this.#output;
  }

  get sandboxId(): StdioSpec["sandboxId"] {
    return this.#spec.sandboxId;
  }

  /** See Relay.processExit. */
  get exit(): Promise<ProcessExit> {
    return this.#exit.promise;
  }

  giveUpOutput(): void {
    this.#gaveUp.resolve();
  }

  /** Resolves when the agent has closed the process's stdin. */
  async closeStdin(call: Call): Promise<void> {
    if (this.#source === undefined) return this.#sendClose(call.signal);
    this.#source.finish();
    await race(this.#stdinDone.promise, call);
  }

  async detach(): Promise<void> {
    this.#detached.abort(new Fault("cancelled", `stdio of ${this.#spec.key} was detached`));
    await Promise.all(this.#open.map((file) => file.close()));
  }

  async #start(): Promise<void> {
    const { spec } = this;
    const { stdout, stderr } = await this.#openOutput();
    this.#source = await this.#keep(openSource(parseStdio("stdin", spec.stdin) as FileTarget));

    const copies = [this.#copyOut("ReadStdout", stdout)];
    if (stderr !== undefined) copies.push(this.#copyOut("ReadStderr", stderr));
    this.#output = Promise.all(copies);
    void this.#watchExit();
    if (this.#source !== undefined) void this.#copyIn(this.#source);
    // Like /dev/null: a process without stdin must not wait for input. A terminal would hang up.
    else if (!spec.terminal) void this.#sendClose(this.#detached.signal).catch((e) => this.#ended("stdin", e));
  }

  /** One logger program takes both streams; who names one for stdout names the same for stderr, or none. */
  async #openOutput(): Promise<{ readonly stdout: StdioSink; readonly stderr: StdioSink | undefined }> {
    const { spec } = this;
    const [out, err] = [parseStdio("stdout", spec.stdout), parseStdio("stderr", spec.terminal ? "" : spec.stderr)];
    if (out.kind === "logger") {
      const { containerId, namespace = "" } = spec;
      const logger = await this.#keep(StdioLogger.start({ ...out, containerId, namespace }));
      return { stdout: logger.stdout, stderr: spec.terminal ? undefined : logger.stderr };
    }
    if (err.kind === "logger") {
      throw new Fault("invalid_argument", `stderr "${spec.stderr}" names a program, stdout does not: name it for both`);
    }
    const stdout = await this.#keep(openSink(out));
    return { stdout, stderr: spec.terminal ? undefined : await this.#keep(openSink(err)) };
  }

  private get spec(): StdioSpec {
    return this.#spec;
  }

  async #keep<T extends { close(): Promise<void> } | undefined>(opening: Promise<T>): Promise<T> {
    const file = await opening;
    if (file !== undefined) this.#open.push(file);
    return file;
  }

  /** The next read is on its way while the last chunk is written; never two reads, they could overtake each other. */
  async #copyOut(method: "ReadStdout" | "ReadStderr", sink: StdioSink): Promise<void> {
    let offset = 0;
    let written: Promise<void> = Promise.resolve();
    let broken = false;
    // A process must not hang because its log cannot be written (disk full): the rest is read and dropped.
    const write = async (data: Uint8Array): Promise<void> => {
      if (broken) return;
      try {
        await sink.write(data);
      } catch (e) {
        broken = true;
        if (!this.#detached.signal.aborted)
          this.#log.warn({ stream: method, err: e }, "output is dropped from here on");
      }
    };
    try {
      for (;;) {
        const data = await this.#read(method, offset);
        await written;
        if (data.length === 0) return;
        offset += data.length;
        written = write(data);
      }
    } catch (e) {
      await written;
      this.#ended(method, e);
    }
  }

  /** Output first: the stock agent forgets a process, its output with it, once its exit code has been fetched. */
  async #watchExit(): Promise<void> {
    const { containerId, execId } = this.#spec;
    const { signal } = this.#detached;
    try {
      await race(Promise.race([this.#output, this.#gaveUp.promise]), { signal });
      const request = WaitProcessRequest.encode({ containerId, execId }).finish();
      const reply = await this.#guest.call(SERVICE, "WaitProcess", request, { signal });
      this.#exit.resolve({ status: WaitProcessResponse.decode(reply).status, at: new Date() });
    } catch (e) {
      this.#exit.reject(e);
    }
  }

  async #read(method: string, offset: number): Promise<Uint8Array> {
    const { containerId, execId } = this.#spec;
    const request = ReadStreamRequest.encode({ containerId, execId, len: CHUNK_BYTES }).finish();
    const reply = await this.#guest.call(SERVICE, method, request, {
      signal: this.#detached.signal,
      metadata: [[STREAM_OFFSET, String(offset)]],
    });
    return ReadStreamResponse.decode(reply).data;
  }

  async #copyIn(source: StdioSource): Promise<void> {
    try {
      let offset = 0;
      for (let chunk = await source.read(); chunk !== undefined; chunk = await source.read()) {
        await this.#write(chunk, offset);
        offset += chunk.length;
      }
      if (!this.#detached.signal.aborted) await this.#sendClose(this.#detached.signal);
      this.#stdinDone.resolve();
    } catch (e) {
      this.#ended("stdin", e);
      // A process that closed its stdin or ended takes no more: closing the FIFO tells the writer so (EPIPE).
      await source.close();
      this.#stdinDone.resolve();
    }
  }

  async #write(chunk: Uint8Array, start: number): Promise<void> {
    const { containerId, execId } = this.#spec;
    for (let done = 0; done < chunk.length; ) {
      const data = Buffer.from(chunk.buffer, chunk.byteOffset + done, chunk.length - done);
      const reply = await this.#guest.call(
        SERVICE,
        "WriteStdin",
        WriteStreamRequest.encode({ containerId, execId, data }).finish(),
        {
          signal: this.#detached.signal,
          metadata: [[STREAM_OFFSET, String(start + done)]],
        },
      );
      const { len } = WriteStreamResponse.decode(reply);
      if (len === 0)
        throw new Fault("unavailable", `the agent took no stdin of ${this.#spec.key}`, {}, { retryable: false });
      done += len;
    }
  }

  async #sendClose(signal: AbortSignal): Promise<void> {
    const { containerId, execId } = this.#spec;
    await this.#guest.call(SERVICE, "CloseStdin", CloseStdinRequest.encode({ containerId, execId }).finish(), {
      signal,
    });
  }

  #ended(stream: string, e: unknown): void {
    if (this.#detached.signal.aborted) return;
    this.#log.debug({ stream, err: e }, "stdio ended early");
  }
}
