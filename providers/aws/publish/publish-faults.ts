import { Fault } from "../../../src/base/fault.ts";
import { kindOf, toFault } from "../faults.ts";

/** Codes of the EBS direct APIs, by the EC2 code that means the same. Source: their API reference, "Errors". */
const EBS_CODES: Readonly<Record<string, string>> = {
  ValidationException: "InvalidParameterValue",
  ResourceNotFoundException: "InvalidSnapshot.NotFound",
  InternalServerException: "InternalError",
  ConflictException: "IdempotentParameterMismatch",
  ConcurrentLimitExceededException: "ResourceCountExceeded",
  ServiceQuotaExceededException: "ResourceCountExceeded",
};

/** The Fault for whatever a request of the EBS direct APIs threw; `awsCode` is its own name for it. */
export function toEbsFault(thrown: unknown, action: string, region: string): Fault {
  if (!(thrown instanceof Error) || thrown instanceof Fault) return toFault(thrown, action, { region });
  const awsCode = thrown.name;
  const same = EBS_CODES[awsCode];
  if (same === undefined) return toFault(thrown, action, { region });
  const { httpStatusCode, requestId } =
    (thrown as { $metadata?: { httpStatusCode?: number; requestId?: string } }).$metadata ?? {};
  const renamed = Object.assign(new Error(thrown.message), { name: same, $metadata: { httpStatusCode, requestId } });
  const fault = toFault(renamed, action, { region });
  const options = { cause: thrown, retryable: fault.retryable };
  const reason = (thrown as { Reason?: unknown }).Reason;
  const awsReason = typeof reason === "string" ? { awsReason: reason } : {};
  return new Fault(fault.code, fault.message, { ...fault.context, awsCode, ...awsReason }, options);
}

/** EC2's own name for what went wrong. */
export function awsCodeOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof Fault)) return undefined;
  const { awsCode } = thrown.context;
  return typeof awsCode === "string" ? awsCode : undefined;
}

/** What the EBS direct APIs find wrong with a request. */
export function reasonOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof Fault)) return undefined;
  const { awsReason } = thrown.context;
  return typeof awsReason === "string" ? awsReason : undefined;
}

/** Whether the same request may succeed a moment later. */
export function mayPass(fault: Fault): boolean {
  return ["throttled", "transient", "clock"].includes(kindOf(fault) ?? "");
}
