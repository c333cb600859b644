import type { Logger } from "../../base/log.ts";
import { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { HealthDefinition } from "../../gen/agent/health.ts";
import { UnixListener } from "../../relay/index.ts";
import { Code, StatusError, TtrpcServer, type UnaryCaller } from "../../ttrpc/index.ts";

/** What a stock shim may reach; our own Guest service is not for it. */
const SERVICES: ReadonlySet<string> = new Set([AgentServiceDefinition.fullName, HealthDefinition.fullName]);

export interface AgentSocketDeps {
  /** 0600; what lies there is replaced. */
  readonly path: string;
  readonly guest: UnaryCaller;
  readonly log: Logger;
}

/**
 * The agent of one sandbox on a unix socket of the node, for shims that dial one. Calls are passed on as bytes, with
 * their deadlines and metadata; replies and status details come back as they are. Any number of connections, silent
 * ones too: the Rust shim opens a second one that it only reads from.
 */
export class AgentSocket {
  readonly #listener: UnixListener;
  readonly #server: TtrpcServer;

  private constructor(listener: UnixListener, server: TtrpcServer) {
    this.#listener = listener;
    this.#server = server;
  }

  /** @throws Fault when the socket cannot be made */
  static async open(deps: AgentSocketDeps): Promise<AgentSocket> {
    const server = new TtrpcServer({ log: deps.log });
    server.setFallback((payload, { service, method, signal, timeoutMs, metadata }) => {
      if (!SERVICES.has(service)) throw new StatusError(Code.unimplemented, `service ${service}`);
      return deps.guest.call(service, method, payload, {
        signal,
        metadata,
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
      });
    });
    const listener = await UnixListener.open(deps.path, (socket) => {
      server.accept(socket);
    });
    return new AgentSocket(listener, server);
  }

  async close(): Promise<void> {
    this.#server.close();
    await this.#listener.close();
  }
}
