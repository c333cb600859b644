import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Request, Response } from "../../src/gen/ttrpc/ttrpc.ts";

export interface WireReply {
  readonly code: number;
  readonly message: string;
  readonly details: readonly { readonly typeUrl: string; readonly value: Uint8Array }[];
  readonly payload: Buffer;
  /** The response message, byte for byte. */
  readonly body: Buffer;
}

export interface WireOptions {
  readonly timeoutNano?: bigint;
  readonly metadata?: readonly (readonly [string, string])[];
}

/**
 * A ttrpc client written from the contract alone (§3.1), to see our server as the peers see it: headers are checked,
 * stream ids are odd and ascending, replies may come in any order.
 */
export class WireClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (reply: WireReply | Error) => void>();
  #buffer = Buffer.alloc(0);
  #next = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (data) => this.#take(data));
    const ended = (): void => {
      for (const settle of this.#waiting.values()) settle(new Error("connection ended"));
    };
    socket.on("error", ended);
    socket.on("close", ended);
  }

  static async dial(path: string): Promise<WireClient> {
    const socket = connect(path);
    await once(socket, "connect");
    return new WireClient(socket);
  }

  call(service: string, method: string, payload: Uint8Array, options: WireOptions = {}): Promise<WireReply> {
    const id = this.#next;
    this.#next += 2;
    const metadata = (options.metadata ?? []).map(([key, value]) => ({ key, value }));
    const body = Request.encode(
      Request.fromPartial({
        service,
        method,
        payload: Buffer.from(payload),
        timeoutNano: options.timeoutNano ?? 0n,
        metadata,
      }),
    ).finish();
    const header = Buffer.alloc(10);
    header.writeUInt32BE(body.length, 0);
    header.writeUInt32BE(id, 4);
    header[8] = 1;
    const reply = new Promise<WireReply>((resolve, reject) => {
      this.#waiting.set(id, (r) => (r instanceof Error ? reject(r) : resolve(r)));
    });
    this.#socket.write(Buffer.concat([header, body]));
    return reply;
  }

  get closed(): boolean {
    return this.#socket.destroyed || this.#socket.readableEnded;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(data: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    while (this.#buffer.length >= 10) {
      const length = this.#buffer.readUInt32BE(0);
      if (this.#buffer.length < 10 + length) return;
      const id = this.#buffer.readUInt32BE(4);
      const [type, flags] = [this.#buffer[8], this.#buffer[9]];
      const body = Buffer.from(this.#buffer.subarray(10, 10 + length));
      this.#buffer = this.#buffer.subarray(10 + length);
      const settle = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (type !== 2 || flags !== 0) settle?.(new Error(`frame of type ${type}, flags ${flags}`));
      else settle?.(read(body));
    }
  }
}

function read(body: Buffer): WireReply {
  const { status, payload } = Response.decode(body);
  return {
    code: status?.code ?? 0,
    message: status?.message ?? "",
    details: status?.details ?? [],
    payload: Buffer.from(payload),
    body,
  };
}
