import type { Socket } from "node:net";
import type { Logger } from "../base/log.ts";
import { AgentServiceDefinition } from "../gen/agent/agent.ts";
import { Code, type ServerCall, StatusError, TtrpcServer, type UnaryCaller } from "../ttrpc/index.ts";
import { editContainer } from "./container-edits.ts";
import { peerPid } from "./peer-pid.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { AgentSocketSpec, AgentSocketUse } from "./relay.ts";
import { bringRootfs, type StockRootfsDeps } from "./stock-rootfs.ts";
import { UnixListener } from "./unix-listener.ts";

/** Our own services in the guest are not for shims; a stock guest has none. */
const OWN_SERVICES = "kataremote.";
const AGENT = AgentServiceDefinition.fullName;
const CREATE_CONTAINER = AgentServiceDefinition.methods.createContainer.name;

/**
 * The agent of one sandbox on a unix socket of the node, for shims that dial one. Calls of any service and method are
 * passed on as bytes, with their deadlines and metadata; replies and status details come back as they are. Only
 * CreateContainer is looked into: edits that a worker makes, and for our guest the root filesystem. Any number of connections, silent ones too: the Rust shim opens a second one that it
 * only reads from.
 */
export class AgentSocket {
  readonly #listener: UnixListener;
  readonly #server: TtrpcServer;
  readonly #ahead: ReadAhead;
  readonly #opened: { idleSince: number };

  private constructor(listener: UnixListener, server: TtrpcServer, ahead: ReadAhead, opened: { idleSince: number }) {
    this.#listener = listener;
    this.#server = server;
    this.#ahead = ahead;
    this.#opened = opened;
  }

  /** @throws Fault when the socket cannot be made */
  static async open(
    spec: AgentSocketSpec,
    deps: { readonly guest: UnaryCaller; readonly log: Logger; readonly sendTree: StockRootfsDeps["send"] },
  ): Promise<AgentSocket> {
    const log = deps.log.child({ sandbox: spec.sandboxId });
    const { guest } = deps;
    const { rootfsDir } = spec;
    const peers = new Map<number, Socket>();
    const container = async (payload: Buffer, call: ServerCall): Promise<Buffer> => {
      const edited = await editContainer(payload, spec, log);
      if (rootfsDir === undefined) return edited;
      const dir = async (): Promise<string> => {
        const peer = peers.get(call.connection ?? 0);
        // The shim has mounts of its own.
        return peer === undefined ? rootfsDir : `/proc/${await peerPid(peer)}/root${rootfsDir}`;
      };
      return bringRootfs(edited, { dir, send: deps.sendTree }, call);
    };
    const ahead = new ReadAhead(guest);
    const server = new TtrpcServer({ log });
    server.setFallback((payload, call) => {
      const { service, method } = call;
      if (service === AGENT && ahead.takes(method)) return ahead.read(payload, call);
      if (service.startsWith(OWN_SERVICES)) throw new StatusError(Code.unimplemented, `service ${service}`);
      if (method !== CREATE_CONTAINER || service !== AGENT) return guest.call(service, method, payload, call);
      return container(payload as Buffer, call).then((edited) => guest.call(service, method, edited, call));
    });
    const opened = { idleSince: performance.now() };
    const listener = await UnixListener.open(spec.path, (socket) => {
      const { id } = server.accept(socket, {
        onClose: () => {
          opened.idleSince = performance.now();
          peers.delete(id);
        },
      });
      peers.set(id, socket);
    });
    return new AgentSocket(listener, server, ahead, opened);
  }

  get use(): Omit<AgentSocketUse, "sandboxId"> {
    const connections = this.#server.connections.size;
    return { connections, idleMs: connections > 0 ? 0 : Math.round(performance.now() - this.#opened.idleSince) };
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#ahead.close();
    await this.#listener.close();
  }
}
