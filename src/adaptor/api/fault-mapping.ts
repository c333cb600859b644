import type { Fault, FaultCode } from "../../base/fault.ts";

/** HTTP status of each Fault code. gRPC's numbers are in src/grpc. */
const HTTP_STATUS: Readonly<Record<FaultCode, number>> = {
  invalid_argument: 400,
  unauthenticated: 401,
  permission_denied: 403,
  not_found: 404,
  already_exists: 409,
  aborted: 409,
  failed_precondition: 412,
  resource_exhausted: 429,
  cancelled: 499,
  internal: 500,
  unimplemented: 501,
  unavailable: 503,
  deadline_exceeded: 504,
};

/** A Fault as problem+json (RFC 9457). */
export function problemOf(fault: Fault): { status: number; body: Record<string, unknown> } {
  const status = HTTP_STATUS[fault.code];
  return { status, body: { title: fault.code, status, detail: fault.fullMessage, retryable: fault.retryable } };
}
