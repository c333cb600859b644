import type { SecureContextOptions, TLSSocket } from "node:tls";
import { Fault } from "../../base/fault.ts";
import { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { HealthDefinition } from "../../gen/agent/health.ts";
import { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import { TREE_ALPN } from "../../guestwire/index.ts";
import { nodeIdOf } from "../../identity/index.ts";
import { type ServerCall, type ServiceImplementation, TtrpcServer } from "../../ttrpc/index.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { guestService, healthService, type ImagesPort, type MachinePort } from "./guest-service.ts";
import { GuestState } from "./guest-state.ts";
import type { GuestIdentity } from "./identity.ts";
import { RepeatedRequests } from "./repeated-requests.ts";
import { TlsListener } from "./tls-listener.ts";
import { TreeReader } from "./tree-reader.ts";
import type { TreeStore } from "./tree-store.ts";

type AgentImplementation = ServiceImplementation<typeof AgentServiceDefinition>;

export interface ForwarderDeps {
  readonly identity: GuestIdentity;
  readonly agent: AgentImplementation;
  readonly trees: TreeStore;
  readonly treeDirectory: (treeId: string) => string;
  readonly machine: MachinePort;
  readonly diskPath: string;
  readonly images: () => Promise<ImagesPort>;
  readonly log: GuestLog;
}

/**
 * The TLS listener of the guest. Only nodes with a certificate of the cluster CA get in; after Configure only the one
 * that configured. A connection speaks ttrpc, or with its own ALPN carries one root filesystem tree.
 */
export class Forwarder implements AsyncDisposable {
  readonly #deps: ForwarderDeps;
  readonly #state = new GuestState();
  readonly #listener: TlsListener;
  readonly #perNode = new Map<string, TtrpcServer>();
  /** Peers that were let in, by their node. */
  readonly #sockets = new Map<TLSSocket, string>();
  readonly #repeated = new RepeatedRequests();

  constructor(deps: ForwarderDeps) {
    this.#deps = deps;
    this.#listener = new TlsListener({
      tls: this.#tls,
      alpn: [TREE_ALPN],
      accept: (socket) => this.#accept(socket),
      log: deps.log,
    });
  }

  /** @returns the port */
  listen(port: number, host?: string): Promise<number> {
    return this.#listener.listen(port, host);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#listener[Symbol.asyncDispose]();
  }

  get #tls(): SecureContextOptions {
    return { ...this.#deps.identity.tls, minVersion: "TLSv1.2" };
  }

  #accept(socket: TLSSocket): void {
    const from = socket.remoteAddress;
    const commonName = socket.getPeerX509Certificate()?.toLegacyObject().subject.CN;
    const nodeId = typeof commonName === "string" ? nodeIdOf(commonName) : undefined;
    if (nodeId === undefined || !this.#state.accepts(nodeId)) {
      this.#deps.log.warn("connection refused", { from, peer: String(commonName) });
      socket.destroy();
      return;
    }
    this.#sockets.set(socket, nodeId);
    socket.once("close", () => this.#sockets.delete(socket));
    if (socket.alpnProtocol === TREE_ALPN) void this.#receiveTree(socket);
    else this.#serverFor(nodeId).accept(socket);
  }

  async #receiveTree(socket: TLSSocket): Promise<void> {
    let reply: object;
    try {
      this.#state.requireConfigured();
      const stored = await this.#deps.trees.receive(new TreeReader(socket));
      reply = stored.skipped ? { ok: true, skipped: true } : { ok: true, bytes: stored.bytes, sha256: stored.sha256 };
    } catch (e) {
      const fault = Fault.from(e);
      this.#deps.log.warn("tree refused", { code: fault.code, err: fault.fullMessage });
      reply = { ok: false, code: fault.code, message: fault.fullMessage };
    }
    const body = Buffer.from(JSON.stringify(reply));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    // The sender closes: ending first while its data is unread would reset the connection and lose the reply.
    socket.write(Buffer.concat([length, body]));
    socket.resume();
    setTimeout(() => socket.destroy(), 10_000).unref();
  }

  #serverFor(nodeId: string): TtrpcServer {
    let server = this.#perNode.get(nodeId);
    if (server === undefined) {
      server = new TtrpcServer();
      const { identity, machine, diskPath, treeDirectory, images } = this.#deps;
      const certificateChanged = (): void => this.#configured(nodeId);
      const guest = guestService(
        { identity, state: this.#state, machine, certificateChanged, diskPath, treeDirectory, images },
        nodeId,
      );
      server.addService(GuestDefinition, this.#repeated.wrap<typeof GuestDefinition>(guest));
      server.addService(HealthDefinition, healthService(this.#state));
      const agent = afterConfigure(this.#deps.agent, this.#state);
      server.addService(AgentServiceDefinition, this.#repeated.wrap<typeof AgentServiceDefinition>(agent));
      this.#perNode.set(nodeId, server);
    }
    return server;
  }

  #configured(nodeId: string): void {
    this.#listener.setTls(this.#tls);
    for (const [socket, owner] of this.#sockets) if (owner !== nodeId) socket.destroy();
    for (const other of this.#perNode.keys()) if (other !== nodeId) this.#perNode.delete(other);
    this.#deps.log.info("configured", { node: nodeId });
  }
}

function afterConfigure(agent: AgentImplementation, state: GuestState): AgentImplementation {
  type Handler = (request: never, call: ServerCall) => Promise<unknown>;
  const guarded = Object.entries(agent as Record<string, Handler>).map(([method, handler]) => [
    method,
    async (request: never, call: ServerCall) => {
      state.requireConfigured();
      return handler(request, call);
    },
  ]);
  return Object.fromEntries(guarded) as AgentImplementation;
}
