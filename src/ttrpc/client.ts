import type { Duplex } from "node:stream";
import { deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { ended } from "../base/retry.ts";
import { decodeResponse, encodeMetadata, encodeTarget, timeoutNano } from "./envelope.ts";
import { FrameParser, type FrameSink, FrameType, MAX_BODY_BYTES, MAX_STREAM_ID } from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";
import { PendingCall } from "./pending-call.ts";
import { Code, StatusError } from "./status.ts";
import { attach } from "./stream.ts";
import type { CallOptions, UnaryCaller } from "./types.ts";

/** With more than this written and not taken by the system, calls wait for the stream to drain. */
const MAX_PENDING_BYTES = 1 << 20;
/** Encoded method names that are kept, per connection. A relay may pass on any name. */
const MAX_KEPT_TARGETS = 512;

const NO_OPTIONS: CallOptions = {};

export interface TtrpcClientOptions {
  readonly log?: Logger;
  /** The first stream id, odd; for tests of what happens when ids run out. */
  readonly firstStreamId?: number;
}

/**
 * One ttrpc connection as a caller: many calls in flight, replies in any order. The client owns the stream. There is no
 * cancel frame in ttrpc: a call that is aborted or late just stops waiting, the peer goes on until its own deadline.
 */
export class TtrpcClient implements UnaryCaller {
  /** Resolves when the connection is gone: with the reason, or with undefined after close() or the peer's end of file. */
  readonly closed: Promise<Error | undefined>;
  readonly #closed = deferred<Error | undefined>();
  readonly #stream: Duplex;
  readonly #log: Logger | undefined;
  readonly #writer: FrameWriter;
  readonly #pending = new Map<number, PendingCall>();
  #waiting: PendingCall[] = [];
  readonly #targets = new Map<string, Map<string, Buffer>>();
  #targetCount = 0;
  #nextId: number;

  constructor(stream: Duplex, options: TtrpcClientOptions = {}) {
    this.#stream = stream;
    this.#log = options.log;
    this.#nextId = options.firstStreamId ?? 1;
    this.#writer = new FrameWriter(stream);
    this.closed = this.#closed.promise;
    const sink: FrameSink = {
      onFrame: (type, streamId, body) => this.#onFrame(type, streamId, body),
      onOversize: (type, streamId, bytes) => this.#onOversize(type, streamId, bytes),
    };
    const parser = new FrameParser(sink);
    attach(stream, {
      onData: (chunk) => parser.push(chunk),
      onDrain: () => this.#sendWaiting(),
      onClose: (error) => this.#onClose(error),
    });
  }

  /** Calls that have no answer yet. */
  get inFlight(): number {
    return this.#pending.size + this.#waiting.length;
  }

  /**
   * Calls a method. `payload` must not be changed until the call has settled; the reply may be a view of a larger buffer.
   * @throws StatusError as the peer answered; code 4 when `timeoutMs` has passed; code 8 when the request or the reply is over 4 MiB
   * @throws Fault cancelled when `signal` is aborted (its reason, when that is a Fault); unavailable with { sent } when the
   *   connection is gone, where sent=false says that the peer has not seen the request
   */
  call(service: string, method: string, payload: Uint8Array, options: CallOptions = NO_OPTIONS): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = options;
      const call = new PendingCall(service, method, resolve, reject);
      if (this.#closed.settled) call.reject(gone(call, false));
      else if (signal?.aborted) call.reject(ended({ signal }));
      else if (timeoutMs !== undefined && timeoutMs <= 0) call.reject(late(call, timeoutMs));
      else {
        call.payload = payload;
        call.metadata = encodeMetadata(options.metadata);
        if (signal !== undefined) call.watch(signal, () => this.#giveUp(call, ended({ signal })));
        if (timeoutMs !== undefined && Number.isFinite(timeoutMs)) {
          call.limit(timeoutMs, () => this.#giveUp(call, late(call, timeoutMs)));
        }
        if (this.#waiting.length > 0 || this.#congested()) this.#waiting.push(call);
        else this.#send(call);
      }
    });
  }

  /** Ends the connection; pending calls fail with unavailable. Repeatable. */
  close(): void {
    this.#writer.flush();
    this.#stream.destroy();
    this.#onClose(undefined);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #send(call: PendingCall): void {
    if (this.#nextId > MAX_STREAM_ID) {
      const message = `${call.path}: all stream ids of this connection are used, open another one`;
      call.reject(new Fault("unavailable", message, { sent: false }));
      return;
    }
    const id = this.#nextId;
    const remainingMs = call.remainingMs();
    try {
      const timeout = remainingMs === undefined ? 0 : timeoutNano(remainingMs);
      this.#writer.request(id, this.#target(call), call.payload, timeout, call.metadata);
    } catch (error) {
      call.reject(error); // over the size limit: nothing was written and no id used
      return;
    }
    this.#nextId = id + 2;
    call.sentAs(id);
    this.#pending.set(id, call);
  }

  #sendWaiting(): void {
    const waiting = this.#waiting;
    let sent = 0;
    while (sent < waiting.length && !this.#congested()) {
      const call = waiting[sent++] as PendingCall;
      if (!call.settled) this.#send(call);
    }
    this.#waiting = waiting.slice(sent).filter((call) => !call.settled);
    // Everything left had been given up and so nothing would cause another drain, or all is sent.
  }

  #congested(): boolean {
    if (this.#writer.pendingBytes < MAX_PENDING_BYTES) return false;
    this.#writer.flush();
    // Without writableNeedDrain no drain event would come, whatever the stream holds.
    return this.#stream.writableNeedDrain && this.#stream.writableLength >= MAX_PENDING_BYTES;
  }

  #target(call: PendingCall): Buffer {
    let methods = this.#targets.get(call.service);
    let target = methods?.get(call.method);
    if (target !== undefined) return target;
    target = encodeTarget(call.service, call.method);
    if (this.#targetCount < MAX_KEPT_TARGETS) {
      this.#targetCount++;
      if (methods === undefined) {
        methods = new Map();
        this.#targets.set(call.service, methods);
      }
      methods.set(call.method, target);
    }
    return target;
  }

  #onFrame(type: number, streamId: number, body: Buffer): void {
    if (type !== FrameType.response && type !== FrameType.data) return;
    const call = this.#pending.get(streamId);
    if (call === undefined) return; // the reply of a call that was given up
    this.#pending.delete(streamId);
    if (type === FrameType.data) {
      call.reject(
        new StatusError(Code.internal, `${call.path}: the peer answered with a stream, a single reply was expected`),
      );
      return;
    }
    try {
      const { error, payload } = decodeResponse(body);
      if (error === undefined) call.resolve(payload);
      else call.reject(error);
    } catch (cause) {
      call.reject(new StatusError(Code.internal, `${call.path}: the reply is not a ttrpc response`, [], { cause }));
    }
  }

  #onOversize(_type: number, streamId: number, bytes: number): void {
    const call = this.#pending.get(streamId);
    this.#pending.delete(streamId);
    const message = `the reply is ${bytes} bytes long, ${MAX_BODY_BYTES} is the limit of ttrpc`;
    call?.reject(new StatusError(Code.resourceExhausted, `${call.path}: ${message}`));
  }

  #giveUp(call: PendingCall, error: Error): void {
    if (call.streamId !== 0) this.#pending.delete(call.streamId);
    call.reject(error);
  }

  #onClose(error: Error | undefined): void {
    if (this.#closed.settled) return;
    this.#closed.resolve(error);
    this.#log?.debug({ err: error, inFlight: this.inFlight }, "ttrpc connection closed");
    const unanswered = [...this.#pending.values()];
    const unsent = this.#waiting;
    this.#pending.clear();
    this.#waiting = [];
    for (const call of unanswered) call.reject(gone(call, true, error));
    for (const call of unsent) call.reject(gone(call, false, error));
  }
}

function gone(call: PendingCall, sent: boolean, cause?: Error): Fault {
  const when = sent ? "was lost before the reply came" : "is closed";
  return new Fault("unavailable", `${call.path}: the connection ${when}`, { sent }, { cause });
}

function late(call: PendingCall, timeoutMs: number): StatusError {
  return new StatusError(Code.deadlineExceeded, `${call.path}: no reply within ${timeoutMs} ms`);
}
