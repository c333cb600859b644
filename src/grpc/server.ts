import { once } from "node:events";
import type { PeerCertificate } from "node:tls";
import type {
  ServerUnaryCall,
  ServerWritableStream,
  ServiceDefinition,
  sendUnaryData,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Call } from "../base/call.ts";
import { type MethodShape, type Request, type Response, type ServiceShape, toServiceDefinition } from "./definition.ts";
import { faultToStatus } from "./fault-status.ts";

/** Who is calling: `certificate` is set when the client proved one by mutual TLS. */
export interface Peer {
  readonly address: string;
  readonly certificate?: PeerCertificate;
}

/** A method's code. Its Call ends when the client gives up; what it throws goes out as the Fault it is. */
export type Handler<M extends MethodShape> = M["responseStream"] extends true
  ? (request: Request<M>, call: Call, peer: Peer) => AsyncIterable<Response<M>>
  : (request: Request<M>, call: Call, peer: Peer) => Promise<Response<M>>;

export type Handlers<S extends ServiceShape> = { readonly [K in keyof S["methods"]]: Handler<S["methods"][K]> };

type AnyHandler = (request: unknown, call: Call, peer: Peer) => Promise<unknown> | AsyncIterable<unknown>;

/** Pairs for `Server.addService`. `onError` sees every failed call before it is answered (for logs and metrics). */
export function implement<S extends ServiceShape>(
  service: S,
  handlers: Handlers<S>,
  onError: (method: string, error: unknown) => void = () => undefined,
): [ServiceDefinition, UntypedServiceImplementation] {
  const implementation: UntypedServiceImplementation = {};
  for (const [key, method] of Object.entries(service.methods)) {
    const handler = handlers[key as keyof S["methods"]] as unknown as AnyHandler;
    const report = (error: unknown): ReturnType<typeof faultToStatus> => {
      onError(method.name, error);
      return faultToStatus(error);
    };
    implementation[key] = method.responseStream ? streaming(handler, report) : unary(handler, report);
  }
  return [toServiceDefinition(service), implementation];
}

function unary(handler: AnyHandler, report: (error: unknown) => ReturnType<typeof faultToStatus>) {
  return (incoming: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>): void => {
    const { call, peer } = contextOf(incoming);
    (async () => handler(incoming.request, call, peer) as Promise<unknown>)().then(
      (value) => answer(null, value),
      (error: unknown) => answer(report(error)),
    );
  };
}

function streaming(handler: AnyHandler, report: (error: unknown) => ReturnType<typeof faultToStatus>) {
  return (stream: ServerWritableStream<unknown, unknown>): void => {
    const { call, peer } = contextOf(stream);
    const pump = async (): Promise<void> => {
      for await (const part of handler(stream.request, call, peer) as AsyncIterable<unknown>) {
        if (!stream.write(part)) await once(stream, "drain", { signal: call.signal });
      }
      stream.end();
    };
    pump().catch((error: unknown) => {
      // A client that went away reads no status; reporting it as a failure would only be noise.
      if (!stream.cancelled) stream.emit("error", report(error));
    });
  };
}

function contextOf(incoming: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>): {
  call: Call;
  peer: Peer;
} {
  const gone = new AbortController();
  incoming.on("cancelled", () => gone.abort());
  const traceparent = incoming.metadata.get("traceparent")[0];
  const certificate = incoming.getAuthContext().sslPeerCertificate as PeerCertificate | undefined;
  const address = incoming.getPeer();
  return {
    call: typeof traceparent === "string" ? { signal: gone.signal, traceparent } : { signal: gone.signal },
    peer: certificate?.subject === undefined ? { address } : { address, certificate },
  };
}
