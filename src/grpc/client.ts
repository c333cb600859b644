import {
  type ChannelCredentials,
  Client,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { ended } from "../base/retry.ts";
import { type MethodShape, methodDefinition, type Partially, type Response, type ServiceShape } from "./definition.ts";
import { statusToFault } from "./fault-status.ts";

/** A method as a function: one answer as a promise, a stream as an async iterable. Every error is a Fault. */
export type ClientMethod<M extends MethodShape> = M["responseStream"] extends true
  ? (request: Partially<M>, call: Call) => AsyncIterable<Response<M>>
  : (request: Partially<M>, call: Call) => Promise<Response<M>>;

/** The functions of a service plus `close`, which ends its connection. */
export type ServiceClient<S extends ServiceShape> = {
  readonly [K in keyof S["methods"]]: ClientMethod<S["methods"][K]>;
} & { close(): void };

/** Whom to trust when there is no identity to show yet, PEM. */
export interface ServerTrust {
  readonly caPem: string;
}

/** Identity for mutual TLS, PEM. */
export interface TlsIdentity {
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface ClientTarget {
  /** `unix:///path/to.sock` or `host:port`. */
  readonly address: string;
  /** Mutual TLS, or the server's side of it only; without it plain text, which is for unix sockets only. */
  readonly tls?: TlsIdentity | ServerTrust;
  readonly options?: ClientOptions;
  /** Sent with every call. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * A client whose connection is made at the first call and again whenever it broke.
 * Streams of requests are not offered: no service of ours has one.
 */
export function createClient<S extends ServiceShape>(service: S, target: ClientTarget): ServiceClient<S> {
  if (target.tls === undefined && !target.address.startsWith("unix:")) {
    throw new Fault("invalid_argument", `gRPC to ${target.address} needs TLS: only a unix socket may go without`);
  }
  const tls = target.tls;
  const channel = new Client(
    target.address,
    tls === undefined ? credentials.createInsecure() : channelCredentials(tls),
    {
      "grpc.max_reconnect_backoff_ms": 2000,
      // A socket's path is no host name, and would be sent as one. With TLS this option would replace the name to verify.
      ...(tls === undefined ? { "grpc.default_authority": "kata-remote" } : {}),
      ...target.options,
    },
  );
  const methods = Object.entries(service.methods).map(([key, method]) => [
    key,
    method.responseStream
      ? streaming(channel, service, method, target.metadata)
      : unary(channel, service, method, target.metadata),
  ]);
  return { ...Object.fromEntries(methods), close: () => channel.close() } as ServiceClient<S>;
}

function channelCredentials(tls: TlsIdentity | ServerTrust): ChannelCredentials {
  const ca = Buffer.from(tls.caPem);
  if (!("keyPem" in tls)) return credentials.createSsl(ca);
  return credentials.createSsl(ca, Buffer.from(tls.keyPem), Buffer.from(tls.certificatePem));
}

function unary(channel: Client, service: ServiceShape, method: MethodShape, fixed: ClientTarget["metadata"]) {
  const { path, requestSerialize, responseDeserialize } = methodDefinition(service, method);
  return (request: never, call: Call): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (call.signal.aborted) return reject(ended(call));
      const message: unknown = method.requestType.fromPartial(request);
      const done = (error: ServiceError | null, answer?: unknown): void => {
        call.signal.removeEventListener("abort", onAbort);
        if (error === null) resolve(answer);
        else reject(call.signal.aborted ? ended(call, error) : statusToFault(error));
      };
      const running = channel.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        message,
        metadataOf(call, fixed),
        {},
        done,
      );
      const onAbort = (): void => running.cancel();
      call.signal.addEventListener("abort", onAbort, { once: true });
    });
}

function streaming(channel: Client, service: ServiceShape, method: MethodShape, fixed: ClientTarget["metadata"]) {
  const { path, requestSerialize, responseDeserialize } = methodDefinition(service, method);
  return async function* (request: never, call: Call): AsyncGenerator<unknown> {
    if (call.signal.aborted) throw ended(call);
    const message: unknown = method.requestType.fromPartial(request);
    const stream = channel.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      message,
      metadataOf(call, fixed),
      {},
    );
    const onAbort = (): void => stream.cancel();
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      for await (const part of stream) yield part;
    } catch (error) {
      throw call.signal.aborted ? ended(call, error) : statusToFault(error as ServiceError);
    } finally {
      call.signal.removeEventListener("abort", onAbort);
      stream.cancel();
    }
  };
}

function metadataOf(call: Call, fixed: ClientTarget["metadata"] = {}): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(fixed)) metadata.set(key, value);
  if (call.traceparent !== undefined) metadata.set("traceparent", call.traceparent);
  return metadata;
}
