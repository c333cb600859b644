import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Call } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import { NamespaceSockets } from "./namespace-socket.ts";
import { redirectLocalhost } from "./redirect.ts";

export interface LocalhostDoorDeps {
  /** The pod's namespace on this node, as this process reaches it. */
  readonly netns: string;
  /** Takes a connection that somebody on the node has made to a port of the pod's localhost. Never rejects. */
  readonly join: (socket: Socket, port: number) => Promise<void>;
  readonly log: Logger;
}

/** Where the pod's own programs are not: they are in the VM. Another daemon's rule leads there too. */
const DOOR_PORT = 15_151;

/**
 * Answers on 127.0.0.1 of the namespace that the CNI made for a pod, on every TCP port, though the pod's programs listen
 * in the VM. containerd's port-forward dials there, and so do probes of some CNIs.
 * Source: containerd pkg/cri/server/sandbox_portforward_linux.go.
 */
export class LocalhostDoor {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws Fault failed_precondition */
  static async open(deps: LocalhostDoorDeps, call: Call): Promise<LocalhostDoor> {
    const sockets = await NamespaceSockets.load();
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    const door = new LocalhostDoor(server);
    server.on("connection", (socket) => void door.#accept(socket, sockets, deps));
    server.on("error", (err) => deps.log.warn({ err }, "the pod's localhost does not answer on the node"));
    server.listen({ fd: sockets.bindLocalhost(deps.netns, DOOR_PORT) });
    await once(server, "listening", { signal: call.signal });
    server.unref();
    try {
      await redirectLocalhost(deps.netns, DOOR_PORT, call);
      return door;
    } catch (error) {
      door.close();
      throw error;
    }
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #accept(socket: Socket, sockets: NamespaceSockets, deps: LocalhostDoorDeps): Promise<void> {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    try {
      await deps.join(socket, sockets.originalPort(socket));
    } catch (err) {
      deps.log.warn({ err }, "connection to the pod's localhost not taken");
      socket.destroy();
    }
  }
}
