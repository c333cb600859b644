import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";
import type { Call } from "../base/call.ts";
import type { Logger } from "../base/log.ts";
import { StatusError, TtrpcServer } from "../ttrpc/index.ts";
import type { DoorSpec, TaskReply, TaskRequest } from "./relay.ts";
import { UnixListener } from "./unix-listener.ts";

export interface TaskDoorDeps {
  readonly answer: (request: TaskRequest, call: Call) => Promise<TaskReply>;
  readonly log: Logger;
}

/**
 * The socket one containerd makes its Task calls on. Every call, whatever its service and method, becomes one
 * TaskRequest; its Call ends when the deadline passes or the peer goes.
 */
export class TaskDoor {
  readonly #spec: DoorSpec;
  readonly #deps: TaskDoorDeps;
  #listener: UnixListener | undefined;
  readonly #sockets = new Set<Socket>();
  #connections = 0;

  constructor(spec: DoorSpec, deps: TaskDoorDeps) {
    this.#spec = spec;
    this.#deps = deps;
  }

  /**
   * Repeatable: a socket that somebody removed or replaced is made again; connections that are open stay.
   * @throws Fault when the socket cannot be made
   */
  async listen(): Promise<void> {
    const before = this.#listener;
    if (await before?.isReachable()) return;
    before?.retire();
    this.#listener = await UnixListener.open(this.#spec.socketPath, (socket) => this.#accept(socket));
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this.#listener?.close();
  }

  #accept(socket: Socket): void {
    const connection = ++this.#connections;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    const { answer, log } = this.#deps;
    // A server of its own per connection: that is how a handler knows which connection its call came on.
    const server = new TtrpcServer({ log });
    server.setFallback(async (payload, { service, method, metadata, timeoutMs, signal }) => {
      const origin = { key: randomUUID(), door: this.#spec.door, connection };
      const request: TaskRequest = { ...origin, service, method, payload, metadata, timeoutMs };
      const reply = await answer(request, { signal });
      if (reply.ok) return reply.payload;
      throw new StatusError(reply.code, reply.message);
    });
    server.accept(socket);
    socket.on("error", (err) => log.debug({ door: this.#spec.door, connection, err }, "task connection broke"));
  }
}
