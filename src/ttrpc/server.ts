import type { Duplex } from "node:stream";
import type { Logger } from "../base/log.ts";
import { silentLogger } from "../base/silent-log.ts";
import { Routes, rawRoute, typedRoutes } from "./routes.ts";
import { type ConnectionLimits, ServerConnection } from "./server-connection.ts";
import type { ServiceDefinition, ServiceImplementation, UnaryHandler } from "./types.ts";

export interface TtrpcServerOptions {
  readonly log?: Logger;
  /** Requests of one connection being answered at one time, default 10,000. At the limit the connection is not read. */
  readonly maxInFlight?: number;
  /** Payload bytes of the requests of one connection being answered, default 128 MiB. Works as maxInFlight does. */
  readonly maxInFlightBytes?: number;
}

/** What accept() gives: one peer. */
export interface TtrpcConnection {
  /** Counts up from 1 in each server. */
  readonly id: number;
  /** Requests being answered. */
  readonly inFlight: number;
  /** Sends the answers that were given, aborts the handlers still running, ends the stream. Repeatable. */
  close(): void;
}

/**
 * A ttrpc server without a listener: it is given streams, whatever they run over. One handler answers calls of all
 * connections; a handler never blocks another one. A handler that throws a Fault or StatusError fails its call with that
 * code; anything else is Unknown to the peer and an error in the log. Nothing a peer sends closes more than its own connection.
 */
export class TtrpcServer {
  readonly #log: Logger;
  readonly #limits: ConnectionLimits;
  readonly #routes = new Routes();
  readonly #connections = new Set<ServerConnection>();
  #lastConnection = 0;

  constructor(options: TtrpcServerOptions = {}) {
    this.#log = options.log ?? silentLogger();
    this.#limits = {
      maxInFlight: options.maxInFlight ?? 10_000,
      maxInFlightBytes: options.maxInFlightBytes ?? 128 << 20,
    };
  }

  /**
   * Serves a generated service. `as` serves it under another name, for services that share their messages. Methods that
   * the implementation lacks answer Unimplemented, or go to the fallback when there is one.
   * @throws Fault already_exists when one of its methods has a handler already
   */
  addService<D extends ServiceDefinition>(
    definition: D,
    implementation: ServiceImplementation<D>,
    options: { readonly as?: string } = {},
  ): void {
    const service = options.as ?? definition.fullName;
    this.#routes.declare(service);
    for (const [method, route] of typedRoutes(definition, implementation)) this.#routes.add(service, method, route);
  }

  /**
   * Serves one method as bytes. The payload may be a view of a larger buffer; the reply must not be changed afterwards.
   * @throws Fault already_exists
   */
  addHandler(service: string, method: string, handler: UnaryHandler): void {
    this.#routes.add(service, method, rawRoute(handler));
  }

  /** Gets every call that no service or handler answers, as bytes: for relays. */
  setFallback(handler: UnaryHandler): void {
    this.#routes.setFallback(rawRoute(handler));
  }

  /** Serves one stream, which the server owns from here on. `onClose` is called once, with the error if one was the reason. */
  accept(stream: Duplex, options: { readonly onClose?: (error: Error | undefined) => void } = {}): TtrpcConnection {
    this.#lastConnection += 1;
    const connection: ServerConnection = new ServerConnection({
      id: this.#lastConnection,
      stream,
      routes: this.#routes,
      log: this.#log,
      limits: this.#limits,
      onClose: (error) => {
        this.#connections.delete(connection);
        options.onClose?.(error);
      },
    });
    this.#connections.add(connection);
    return connection;
  }

  /** Open connections. */
  get connections(): ReadonlySet<TtrpcConnection> {
    return this.#connections;
  }

  /** Closes every connection; further ones can be accepted. */
  close(): void {
    for (const connection of [...this.#connections]) connection.close();
  }
}
