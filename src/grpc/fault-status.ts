import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { Fault, type FaultCode } from "../base/fault.ts";

/** gRPC status number of each Fault code; the names are gRPC's own. */
const STATUS: Readonly<Record<FaultCode, status>> = {
  invalid_argument: status.INVALID_ARGUMENT,
  not_found: status.NOT_FOUND,
  already_exists: status.ALREADY_EXISTS,
  failed_precondition: status.FAILED_PRECONDITION,
  permission_denied: status.PERMISSION_DENIED,
  unauthenticated: status.UNAUTHENTICATED,
  resource_exhausted: status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  aborted: status.ABORTED,
  deadline_exceeded: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  unimplemented: status.UNIMPLEMENTED,
  internal: status.INTERNAL,
};

const CODES = new Map<status, FaultCode>(Object.entries(STATUS).map(([code, number]) => [number, code as FaultCode]));

/** Trailer that carries `Fault.retryable`, which a status alone does not say. */
const RETRYABLE = "kata-remote-retryable";

/** What a handler's error becomes on the wire. The message is the Fault's with its causes; stacks stay here. */
export function faultToStatus(thrown: unknown): { code: status; details: string; metadata: Metadata } {
  const fault = Fault.from(thrown);
  const metadata = new Metadata();
  metadata.set(RETRYABLE, fault.retryable ? "1" : "0");
  return { code: STATUS[fault.code], details: fault.fullMessage, metadata };
}

/** The Fault that a failed call was; a broken connection is `unavailable`. */
export function statusToFault(error: ServiceError): Fault {
  const said = error.metadata?.get(RETRYABLE)[0];
  // grpc-js adds an empty note to what it says of a connection; its error says the same again and is no cause.
  const message = (error.details || error.message).replace(/\.?\s*Resolution note:\s*$/, "");
  const options = {
    ...(error.message.includes(error.details) ? {} : { cause: error }),
    ...(said === undefined ? {} : { retryable: said === "1" }),
  };
  return new Fault(CODES.get(error.code) ?? "internal", message, {}, options);
}
