export { TtrpcClient, type TtrpcClientOptions } from "./client.ts";
export { HEADER_BYTES, MAX_BODY_BYTES } from "./frame.ts";
export { type TtrpcConnection, TtrpcServer, type TtrpcServerOptions } from "./server.ts";
export { Code, canonicalCode, faultToStatus, type StatusDetail, StatusError, statusToFault } from "./status.ts";
export { createClient } from "./typed-client.ts";
export type {
  CallOptions,
  Codec,
  Metadata,
  ServerCall,
  ServiceClient,
  ServiceDefinition,
  ServiceImplementation,
  UnaryCaller,
  UnaryHandler,
} from "./types.ts";
export { delimited, MalformedMessage, WireReader } from "./wire.ts";
