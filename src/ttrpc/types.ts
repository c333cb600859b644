/** Key–value pairs of a request, in order; keys lower case, a key may repeat. */
export type Metadata = readonly (readonly [key: string, value: string])[];

/** A ServerCall is one too: a relay passes its call on as options. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Deadline sent to the peer as timeout_nano and kept here as well, ms. Absent: none. */
  readonly timeoutMs?: number | undefined;
  readonly metadata?: Metadata | undefined;
}

/** Something that makes unary calls: a ttrpc connection, or what repeats calls over several of them. */
export interface UnaryCaller {
  /** @throws StatusError with the peer's code, message and details; Fault unavailable when the connection is gone */
  call(service: string, method: string, payload: Uint8Array, options?: CallOptions): Promise<Uint8Array>;
}

/** What a handler knows of its call. */
export interface ServerCall {
  /** Aborted when the deadline passes or the peer goes away. */
  readonly signal: AbortSignal;
  /** ms left when the request came; undefined = no deadline. */
  readonly timeoutMs: number | undefined;
  readonly metadata: Metadata;
  readonly service: string;
  readonly method: string;
  /** TtrpcConnection.id of the connection it came on, when it came on one. */
  readonly connection?: number;
}

export type UnaryHandler = (payload: Uint8Array, call: ServerCall) => Promise<Uint8Array>;

/** A generated message codec (ts-proto MessageFns, the part we use). */
export interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

/** The shape of ts-proto's generic service definitions. */
export interface ServiceDefinition {
  readonly fullName: string;
  /** Codec<unknown> takes every generated codec, since methods are bivariant in their parameters. */
  readonly methods: Readonly<
    Record<
      string,
      { readonly name: string; readonly requestType: Codec<unknown>; readonly responseType: Codec<unknown> }
    >
  >;
}

type Message<C> = C extends { decode(input: Uint8Array, length?: number): infer T } ? T : never;

/** Typed client of a service: `client.createContainer(request, options)`. */
export type ServiceClient<D extends ServiceDefinition> = {
  readonly [M in keyof D["methods"]]: (
    request: Message<D["methods"][M]["requestType"]>,
    options?: CallOptions,
  ) => Promise<Message<D["methods"][M]["responseType"]>>;
};

/** Typed implementation of a service. A method left out answers Unimplemented. */
export type ServiceImplementation<D extends ServiceDefinition> = {
  readonly [M in keyof D["methods"]]?: (
    request: Message<D["methods"][M]["requestType"]>,
    call: ServerCall,
  ) => Promise<Message<D["methods"][M]["responseType"]>>;
};
