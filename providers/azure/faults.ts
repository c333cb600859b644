import { Fault, type FaultCode, type FaultContext } from "../../src/base/fault.ts";
import { NETWORK_ERRORS } from "../../src/provider/index.ts";
import { FAULT_CODES } from "./fault-codes.ts";

/**
 * What an error means for whoever called: `throttled` and `transient` pass by themselves, the shortages are reasons to
 * try another place, `setup` and `auth` need an operator, `bad-request` another request. `exists` is what a repeated
 * create learns, `busy` that another operation on the same resource has to end first.
 */
export type AzureFaultKind =
  | "throttled"
  | "transient"
  | "capacity"
  | "not-offered"
  | "quota"
  | "subnet-full"
  | "setup"
  | "auth"
  | "bad-request"
  | "not-found"
  | "exists"
  | "busy"
  | "unknown";

const KIND_BY_CODE = new Map(
  Object.entries(FAULT_CODES).flatMap(([kind, codes]) =>
    codes.map((code) => [code.toLowerCase(), kind as AzureFaultKind] as const),
  ),
);

/** What Node's network code and the SDK's pipeline report: nothing came back, so the request may have had its effect. */
const NETWORK = new Set([...NETWORK_ERRORS, "REQUEST_SEND_ERROR", "PARSE_ERROR", "EPROTO"]);

const RULES: Readonly<Record<AzureFaultKind, readonly [FaultCode, string]>> = {
  throttled: ["unavailable", "Azure throttles this subscription's requests"],
  transient: ["unavailable", "Azure did not answer or had an error of its own"],
  capacity: ["resource_exhausted", "Azure has no capacity there"],
  "not-offered": ["resource_exhausted", "the size is not offered there to this subscription"],
  quota: ["resource_exhausted", "a quota is used up: ask for more in the portal under Quotas, or end other VMs"],
  "subnet-full": ["resource_exhausted", "the subnet has no free address: add a subnet to providers.azure.subnets"],
  setup: ["failed_precondition", "what the configuration names is not there or cannot be used: see kata-remote check"],
  auth: ["permission_denied", "the credentials are missing, expired or lack a role: see providers/azure/README.md"],
  "bad-request": ["invalid_argument", "Azure refuses the request"],
  "not-found": ["not_found", "Azure knows no such resource"],
  exists: ["already_exists", "there is a VM of this name already"],
  busy: ["unavailable", "another operation on the same resource is not over yet"],
  unknown: ["internal", "Azure answered with an error that is not in the table"],
};

const DEFAULT_THROTTLE_MS = 1000;

/** An error as Azure says it, wherever: in an answer, or in a VM's own state. */
export interface AzureError {
  readonly code: string;
  readonly message: string;
  readonly status?: number | undefined;
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
}

/**
 * The Fault for whatever a request threw. Its context has `kind` (AzureFaultKind), `azureCode`, `requestId` and, when
 * waiting helps, `retryAfterMs`; Azure's own words are its cause.
 */
export function toFault(thrown: unknown, action: string, context: FaultContext): Fault {
  return thrown instanceof Fault ? thrown : faultOf(readError(thrown), action, context);
}

/** The Fault for an error that is known by code and words. */
export function faultOf(error: AzureError, action: string, context: FaultContext): Fault {
  const kind = classify(error);
  const [code, meaning] = RULES[kind];
  const details: FaultContext = {
    provider: "azure",
    ...context,
    ...{ kind, azureCode: error.code, action },
    ...(error.status === undefined ? {} : { status: error.status }),
    ...(error.requestId === undefined ? {} : { requestId: error.requestId }),
    ...(kind === "throttled" ? { retryAfterMs: error.retryAfterMs ?? DEFAULT_THROTTLE_MS } : {}),
    // What Azure itself has named, where it has.
    ...(error.retryAfterMs === undefined ? {} : { retryAfterSaid: error.retryAfterMs }),
  };
  const cause = new Error(`${error.code}: ${error.message}`);
  const numbers = kind === "quota" ? quotaNumbers(error.message) : undefined;
  const text = numbers === undefined ? `${action}: ${meaning}` : `${action}: ${numbers}`;
  return new Fault(code, text, details, { cause, ...(kind === "capacity" ? { retryable: true } : {}) });
}

/** @returns undefined for a Fault that no request to Azure caused */
export function kindOf(thrown: unknown): AzureFaultKind | undefined {
  if (!(thrown instanceof Fault)) return undefined;
  const { kind } = thrown.context;
  return typeof kind === "string" && kind in RULES ? (kind as AzureFaultKind) : undefined;
}

/** By the code; where Azure uses one code for several things, by its words; else by the status. */
export function classify({ code, message, status = 0 }: AzureError): AzureFaultKind {
  if (NETWORK.has(code)) return "transient";
  // Whatever its code: Compute says OperationNotAllowed for this too.
  if (status === 429) return "throttled";
  if (code === "OperationNotAllowed" || code === "ResourceOperationFailure") {
    // One code for quotas and for what the VM's state forbids. Source: "Resolve errors for resource quotas".
    if (/quota|exceeding approved|limit/i.test(message)) return "quota";
    return code === "OperationNotAllowed" ? "busy" : "unknown";
  }
  const known = KIND_BY_CODE.get(code.toLowerCase());
  if (known !== undefined) return known;
  if (status === 401 || status === 403) return "auth";
  if (status === 404) return "not-found";
  if (status === 412) return "exists";
  if (status === 408 || status >= 500) return "transient";
  if (status === 409) return "busy";
  if (status === 400) return "bad-request";
  return "unknown";
}

/** The numbers in Azure's words for a quota. They are shown, nothing is decided by them. */
function quotaNumbers(message: string): string | undefined {
  const name = /exceeding approved (.+? quota)/i.exec(message)?.[1];
  const [limit, usage, more] = ["Current Limit", "Current Usage", "Additional Required"].map(
    (label) => new RegExp(`${label}: (\\d+)`, "i").exec(message)?.[1],
  );
  const where = /Location: (\w+)/i.exec(message)?.[1];
  if (limit === undefined || usage === undefined) return undefined;
  const place = where === undefined ? "" : ` in ${where}`;
  const need = more === undefined ? "" : `, ${more} more are needed`;
  return `${name ?? "quota"} ${usage}/${limit}${place}${need}: ask for more in the portal under Quotas, or end other VMs`;
}

interface SdkError extends Error {
  readonly code?: string | number;
  readonly statusCode?: number;
  readonly details?: unknown;
  readonly response?: { readonly headers?: { get(name: string): string | undefined } };
}

/** What RestError and the errors of @azure/identity have in common. */
function readError(thrown: unknown): AzureError {
  if (!(thrown instanceof Error)) return { code: "unknown", message: String(thrown) };
  const error: SdkError = thrown;
  const inner = innermost(error.details);
  const header = (name: string): string | undefined => error.response?.headers?.get(name);
  const code = inner?.code ?? (typeof error.code === "string" ? error.code : error.name);
  return {
    code,
    message: inner?.message ?? error.message,
    status: error.statusCode,
    requestId: header("x-ms-request-id") ?? header("x-ms-correlation-request-id"),
    retryAfterMs: readRetryAfter(header),
  };
}

/** ARM wraps: what says why is furthest inside. */
function innermost(details: unknown): { readonly code: string; readonly message: string } | undefined {
  if (typeof details !== "object" || details === null) return undefined;
  const body = details as { error?: unknown; code?: unknown; message?: unknown; details?: unknown };
  if (body.error !== undefined) return innermost(body.error);
  const [first] = Array.isArray(body.details) ? body.details : [];
  const deeper = innermost(first);
  if (deeper !== undefined && deeper.code !== "") return deeper;
  if (typeof body.code !== "string") return undefined;
  return { code: body.code, message: typeof body.message === "string" ? body.message : "" };
}

/** Seconds or a date, or milliseconds under two other names. Source: RFC 9110 §10.2.3; Azure SDK guidelines. */
export function readRetryAfter(header: (name: string) => string | undefined): number | undefined {
  for (const name of ["retry-after-ms", "x-ms-retry-after-ms"]) {
    const ms = Number(header(name) ?? Number.NaN);
    if (Number.isFinite(ms)) return ms;
  }
  const value = header("retry-after");
  if (value === undefined || value === "") return undefined;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return seconds * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}
