import { Fault, type FaultCode } from "../base/fault.ts";

/** The canonical codes. Source: google/rpc/code.proto. */
export const Code = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;

/** A google.protobuf.Any: a message that was not decoded, and its type. */
export interface StatusDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/**
 * A call that ended with a status, the peer's or one that the peer would have given: the local deadline (4) and the
 * local size limit (8) come in the same form, so that a caller handles them once. Thrown by a handler, it goes out as it
 * is: errors cross a relay unchanged.
 */
export class StatusError extends Error {
  override readonly name = "StatusError";
  readonly code: number;
  readonly details: readonly StatusDetail[];

  constructor(
    code: number,
    message: string,
    details: readonly StatusDetail[] = [],
    options: { readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = details;
  }
}

const TO_CANONICAL: Readonly<Record<FaultCode, number>> = {
  invalid_argument: Code.invalidArgument,
  not_found: Code.notFound,
  already_exists: Code.alreadyExists,
  failed_precondition: Code.failedPrecondition,
  permission_denied: Code.permissionDenied,
  unauthenticated: Code.unauthenticated,
  resource_exhausted: Code.resourceExhausted,
  unavailable: Code.unavailable,
  aborted: Code.aborted,
  deadline_exceeded: Code.deadlineExceeded,
  cancelled: Code.cancelled,
  unimplemented: Code.unimplemented,
  internal: Code.internal,
};

const FROM_CANONICAL: ReadonlyMap<number, FaultCode> = new Map<number, FaultCode>([
  ...Object.entries(TO_CANONICAL).map(([fault, canonical]) => [canonical, fault as FaultCode] as const),
  [Code.outOfRange, "invalid_argument"],
  [Code.dataLoss, "internal"],
]);

/** The canonical code of a Fault's code. */
export function canonicalCode(code: FaultCode): number {
  return TO_CANONICAL[code];
}

/**
 * What a peer is told of anything thrown. A StatusError stays as it is (one with code 0 is a mistake: Unknown), a Fault
 * keeps its code and its full message, anything else is Unknown with its text, as from a Go server.
 */
export function faultToStatus(thrown: unknown): StatusError {
  if (thrown instanceof StatusError) {
    if (thrown.code !== Code.ok) return thrown;
    return new StatusError(Code.unknown, thrown.message, thrown.details, { cause: thrown });
  }
  if (thrown instanceof Fault)
    return new StatusError(TO_CANONICAL[thrown.code], thrown.fullMessage, [], { cause: thrown });
  if (thrown instanceof Error) return new StatusError(Code.unknown, thrown.message, [], { cause: thrown });
  return new StatusError(Code.unknown, String(thrown));
}

/**
 * What our code makes of anything that a call threw. A Fault passes unchanged; a status keeps its meaning and message and
 * is the cause; codes without a counterpart (unknown, data loss) are internal.
 */
export function statusToFault(thrown: unknown): Fault {
  if (!(thrown instanceof StatusError)) return Fault.from(thrown);
  const code = FROM_CANONICAL.get(thrown.code) ?? "internal";
  return new Fault(code, thrown.message, { rpcCode: thrown.code }, { cause: thrown });
}
