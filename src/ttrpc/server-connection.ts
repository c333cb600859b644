import type { Duplex } from "node:stream";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { decodeRequest, type LastTarget, type RequestEnvelope } from "./envelope.ts";
import { FrameParser, FrameType, MAX_BODY_BYTES } from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";
import type { Route, Routes } from "./routes.ts";
import { ServedCall } from "./served-call.ts";
import { Code, StatusError } from "./status.ts";
import { attach } from "./stream.ts";

/** After close() the peer has this long to take what was answered already, ms. */
const CLOSE_GRACE_MS = 1000;

export interface ConnectionLimits {
  /** Requests being answered at one time; more are not read. */
  readonly maxInFlight: number;
  /** Payload bytes of the requests being answered; beyond it no more are read. */
  readonly maxInFlightBytes: number;
}

export interface ServerConnectionDeps {
  readonly id: number;
  readonly stream: Duplex;
  readonly routes: Routes;
  readonly log: Logger;
  readonly limits: ConnectionLimits;
  readonly onClose: (error: Error | undefined) => void;
}

/**
 * One connection as a server sees it. It stops reading while the peer doesn't read its answers or while too much is in
 * flight, so memory is bounded by the limits plus one body and one chunk. While it doesn't read for want of finished
 * handlers it learns that the peer has gone only from the next answer.
 */
export class ServerConnection {
  /** Unique in the server. */
  readonly id: number;
  readonly #stream: Duplex;
  readonly #routes: Routes;
  readonly #log: Logger;
  readonly #limits: ConnectionLimits;
  readonly #writer: FrameWriter;
  readonly #parser: FrameParser;
  readonly #calls = new Map<number, ServedCall>();
  readonly #onClosed: (error: Error | undefined) => void;
  #callBytes = 0;
  readonly #lastTarget: LastTarget = { bytes: Buffer.alloc(0), service: "", method: "" };
  #lastId = 0;
  #congested = false;
  #closed = false;

  constructor(deps: ServerConnectionDeps) {
    this.id = deps.id;
    this.#stream = deps.stream;
    this.#routes = deps.routes;
    this.#log = deps.log;
    this.#limits = deps.limits;
    this.#onClosed = deps.onClose;
    this.#writer = new FrameWriter(deps.stream, () => this.#onWritten());
    this.#parser = new FrameParser({
      onFrame: (type, streamId, body) => this.#onFrame(type, streamId, body),
      onOversize: (type, streamId, bytes) => this.#onOversize(type, streamId, bytes),
    });
    attach(deps.stream, {
      onData: (chunk) => {
        if (!this.#closed) this.#parser.push(chunk);
      },
      onDrain: () => this.#onWritten(),
      onClose: (error) =>
        this.#end(error, new Fault("cancelled", "the peer closed the connection", {}, { cause: error })),
    });
  }

  /** Requests being answered. */
  get inFlight(): number {
    return this.#calls.size;
  }

  /** Ends the connection after the answers that were given already; handlers still running are aborted. Repeatable. */
  close(): void {
    if (this.#closed) return;
    this.#writer.flush();
    this.#end(undefined, new Fault("cancelled", "the server closed the connection"));
    this.#stream.resume(); // what still comes is dropped, so that the peer's end is seen
    this.#stream.end(() => this.#stream.destroy());
    setTimeout(() => this.#stream.destroy(), CLOSE_GRACE_MS).unref();
  }

  #end(error: Error | undefined, reason: Fault): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#log.debug({ connection: this.id, inFlight: this.#calls.size, err: error }, "ttrpc connection closed");
    for (const call of this.#calls.values()) call.abort(reason);
    this.#onClosed(error);
  }

  #onFrame(type: number, streamId: number, body: Buffer): void {
    if (this.#closed || type !== FrameType.request) return; // types to come, and data of streams that we never opened
    if (!this.#acceptId(streamId)) return;
    let request: RequestEnvelope;
    try {
      request = decodeRequest(body, this.#lastTarget);
    } catch (cause) {
      this.#fail(streamId, new StatusError(Code.invalidArgument, `not a ttrpc request: ${(cause as Error).message}`));
      return;
    }
    const timeoutMs = request.timeoutNano === 0 ? undefined : request.timeoutNano / 1e6;
    const call = new ServedCall({ connection: this.id, streamId }, request, timeoutMs);
    try {
      const route = this.#routes.find(call.service, call.method);
      if (timeoutMs !== undefined && timeoutMs < 0) {
        throw new StatusError(
          Code.deadlineExceeded,
          `${call.service}/${call.method}: the deadline had passed when the request came`,
        );
      }
      this.#start(call, route, request.payload);
    } catch (thrown) {
      this.#failCall(call, thrown);
    }
  }

  /** Runs after every answer, so it is also where a finished call lets the next ones in. */
  #onWritten(): void {
    this.#congested = this.#stream.writableNeedDrain;
    if (this.#congested !== this.#parser.paused) this.#regulate();
  }

  #acceptId(streamId: number): boolean {
    if (streamId % 2 === 1 && streamId > this.#lastId) {
      this.#lastId = streamId;
      return true;
    }
    const rule =
      streamId % 2 === 1
        ? "StreamID cannot be re-used and must increment"
        : "StreamID must be odd for client initiated streams";
    this.#fail(streamId, new StatusError(Code.invalidArgument, rule));
    return false;
  }

  #onOversize(type: number, streamId: number, bytes: number): void {
    if (this.#closed || type !== FrameType.request) return;
    if (streamId % 2 === 1 && streamId > this.#lastId) this.#lastId = streamId;
    const message = `message length ${bytes} exceed maximum message size of ${MAX_BODY_BYTES}`;
    this.#fail(streamId, new StatusError(Code.resourceExhausted, message));
  }

  #start(call: ServedCall, route: Route, payload: Buffer): void {
    this.#calls.set(call.streamId, call);
    this.#callBytes += call.payloadBytes;
    let result: Promise<unknown>;
    try {
      result = Promise.resolve(route.invoke(payload, call));
    } catch (thrown) {
      result = Promise.reject(thrown);
    }
    result.then(
      (value) => this.#succeed(call, route, value),
      (thrown) => {
        this.#finish(call);
        this.#failCall(call, thrown);
      },
    );
    this.#regulate();
  }

  #succeed(call: ServedCall, route: Route, value: unknown): void {
    this.#finish(call);
    if (this.#closed) return;
    try {
      this.#writer.response(call.streamId, route.encode(value));
    } catch (thrown) {
      this.#failCall(call, thrown); // not encodable, or over the size limit
    }
  }

  #finish(call: ServedCall): void {
    call.finish();
    this.#calls.delete(call.streamId);
    this.#callBytes -= call.payloadBytes;
  }

  #failCall(call: ServedCall, thrown: unknown): void {
    const { service, method } = call;
    try {
      const status = call.statusOf(thrown);
      if (status.code === Code.unknown && status.cause !== undefined) {
        // Neither a Fault nor a status: a mistake in the handler, of which the peer gets the message only.
        this.#log.error({ connection: this.id, service, method, err: status.cause }, "ttrpc handler threw");
      }
      this.#fail(call.streamId, status);
    } catch (error) {
      // What was thrown is not even an error with a text; the call must be answered all the same.
      this.#log.error({ connection: this.id, service, method, err: error }, "ttrpc handler threw something unreadable");
      this.#fail(call.streamId, new StatusError(Code.unknown, `${service}/${method} failed without a readable error`));
    }
  }

  #fail(streamId: number, status: StatusError): void {
    if (!this.#closed) this.#writer.error(streamId, status);
  }

  /** Reads on or stops reading, as things are now. */
  #regulate(): void {
    if (this.#closed) return;
    if (
      this.#congested ||
      this.#calls.size >= this.#limits.maxInFlight ||
      this.#callBytes >= this.#limits.maxInFlightBytes
    ) {
      if (this.#parser.paused) return;
      this.#parser.pause();
      this.#stream.pause();
    } else if (this.#parser.paused) {
      try {
        this.#parser.resume(); // may fill the limits again
      } catch (error) {
        this.#stream.destroy(error as Error); // what was held is another protocol
        return;
      }
      if (!this.#parser.paused) this.#stream.resume();
    }
  }
}
