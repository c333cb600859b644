import { Fault } from "../base/fault.ts";
import { MalformedMessage } from "./envelope.ts";
import { Code, StatusError } from "./status.ts";
import type { Codec, ServerCall, ServiceDefinition, ServiceImplementation, UnaryHandler } from "./types.ts";

/**
 * One method as the connection runs it. Decoding, the handler and encoding are apart so that a call costs one promise,
 * the handler's.
 */
export interface Route {
  invoke(payload: Buffer, call: ServerCall): Promise<unknown>;
  encode(result: unknown): Uint8Array;
}

/** Which handler answers which (service, method). */
export class Routes {
  readonly #services = new Map<string, Map<string, Route>>();
  #fallback: Route | undefined;

  /** @throws Fault already_exists when the service has that method already */
  add(service: string, method: string, route: Route): void {
    const methods = this.declare(service);
    if (methods.has(method)) throw new Fault("already_exists", `${service}/${method} has a handler already`);
    methods.set(method, route);
  }

  /** Makes a service known, whether or not it gets methods. */
  declare(service: string): Map<string, Route> {
    let methods = this.#services.get(service);
    if (methods === undefined) {
      methods = new Map();
      this.#services.set(service, methods);
    }
    return methods;
  }

  setFallback(route: Route): void {
    this.#fallback = route;
  }

  /** @throws StatusError unimplemented, worded as the Go server does */
  find(service: string, method: string): Route {
    const methods = this.#services.get(service);
    const route = methods?.get(method) ?? this.#fallback;
    if (route !== undefined) return route;
    throw new StatusError(Code.unimplemented, methods === undefined ? `service ${service}` : `method ${method}`);
  }
}

/** Bytes in, bytes out. */
export function rawRoute(handler: UnaryHandler): Route {
  return { invoke: handler, encode: asBytes };
}

/** The methods of a generated service that the implementation has, by their names on the wire. */
export function typedRoutes<D extends ServiceDefinition>(
  definition: D,
  implementation: ServiceImplementation<D>,
): readonly (readonly [method: string, route: Route])[] {
  const handlers = implementation as Readonly<Record<string, TypedHandler | undefined>>;
  return Object.entries(definition.methods).flatMap(([key, { name, requestType, responseType }]) => {
    const handler = handlers[key];
    if (handler === undefined) return [];
    const route: Route = {
      invoke: (payload, call) => handler.call(implementation, decode(requestType, payload, call), call),
      encode: (result) => responseType.encode(result).finish(),
    };
    return [[name, route] as const];
  });
}

type TypedHandler = (request: unknown, call: ServerCall) => Promise<unknown>;

function decode(codec: Codec<unknown>, payload: Buffer, call: ServerCall): unknown {
  try {
    return codec.decode(payload);
  } catch (cause) {
    const message = `${call.service}/${call.method}: the request is not a valid message: ${(cause as Error).message}`;
    throw new StatusError(Code.invalidArgument, message, [], { cause });
  }
}

function asBytes(result: unknown): Uint8Array {
  if (result instanceof Uint8Array) return result;
  throw new MalformedMessage("the handler did not return bytes");
}
