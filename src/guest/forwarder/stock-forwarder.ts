import { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { HealthDefinition } from "../../gen/agent/health.ts";
import { type ServiceImplementation, TtrpcServer } from "../../ttrpc/index.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { servingHealth } from "./guest-service.ts";
import { type StockTls, stockTls } from "./stock-tls.ts";
import { TlsListener } from "./tls-listener.ts";

export interface StockForwarderDeps {
  readonly tls: StockTls;
  readonly agent: ServiceImplementation<typeof AgentServiceDefinition>;
  readonly log: GuestLog;
}

/**
 * What the stock worker dials: TLS, then the agent's and the health service, on any number of connections at once. All of
 * a client's right comes from the CA in its user-data, so the guest is nobody's before and nothing has to be configured.
 */
export class StockForwarder implements AsyncDisposable {
  readonly #listener: TlsListener;
  readonly #ttrpc = new TtrpcServer();

  /** @throws Fault invalid_argument naming the key of apf.json */
  constructor(deps: StockForwarderDeps) {
    this.#ttrpc.addService(HealthDefinition, servingHealth());
    this.#ttrpc.addService(AgentServiceDefinition, deps.agent);
    this.#listener = new TlsListener({
      tls: stockTls(deps.tls),
      accept: (socket) => this.#ttrpc.accept(socket),
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
}
