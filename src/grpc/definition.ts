import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";

/** Encoder and decoder of one message as ts-proto generates them. */
interface MessageCodec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
  fromPartial(object: never): T;
}

/** One method of a ts-proto "generic definition". */
export interface MethodShape {
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: the codec is contravariant in its message; Request/Response below restore the type
  readonly requestType: MessageCodec<any>;
  readonly requestStream: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly responseType: MessageCodec<any>;
  readonly responseStream: boolean;
}

/** A service as ts-proto writes it with `outputServices=generic-definitions`. */
export interface ServiceShape {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodShape>>;
}

/** The message a method takes. */
export type Request<M extends MethodShape> = ReturnType<M["requestType"]["decode"]>;
/** The message a method gives, or each message of its stream. */
export type Response<M extends MethodShape> = ReturnType<M["responseType"]["decode"]>;
/** What a caller has to write of a request: every field may be left out. */
export type Partially<M extends MethodShape> = Parameters<M["requestType"]["fromPartial"]>[0];

/** The same service in grpc-js's words: paths, serializers, deserializers. Keys stay those of the definition. */
export function toServiceDefinition(service: ServiceShape): ServiceDefinition {
  const methods = Object.entries(service.methods).map(([key, method]) => [key, methodDefinition(service, method)]);
  return Object.fromEntries(methods) as ServiceDefinition;
}

/** One method in grpc-js's words. */
export function methodDefinition<M extends MethodShape>(
  service: ServiceShape,
  method: M,
): MethodDefinition<Request<M>, Response<M>> {
  return {
    path: `/${service.fullName}/${method.name}`,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (message) => bytesOf(method.requestType, message),
    requestDeserialize: (data) => method.requestType.decode(data),
    responseSerialize: (message) => bytesOf(method.responseType, message),
    responseDeserialize: (data) => method.responseType.decode(data),
  };
}

function bytesOf<T>(codec: MessageCodec<T>, message: T): Buffer {
  const data = codec.encode(message).finish();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
