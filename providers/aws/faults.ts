import { Fault, type FaultCode, type FaultContext } from "../../src/base/fault.ts";
import { NETWORK_ERRORS } from "../../src/provider/index.ts";

/**
 * What an error means for whoever called: `throttled` and `transient` pass by themselves, `capacity`, `quota` and
 * `subnet-full` are reasons to try another place, `setup` and `auth` need an operator, `bad-request` a change of the
 * request. `mismatch` and `ended` are what a repeated create learns about the first one.
 */
export type AwsFaultKind =
  | "throttled"
  | "transient"
  | "capacity"
  | "not-offered"
  | "quota"
  | "subnet-full"
  | "setup"
  | "auth"
  | "clock"
  | "bad-request"
  | "refused"
  | "not-found"
  | "mismatch"
  | "ended"
  | "dry-run"
  | "unknown";

/** Source: EC2 API reference "Error codes for the Amazon EC2 API"; the common errors of AWS's query APIs. */
const KINDS: Readonly<Record<Exclude<AwsFaultKind, "unknown">, readonly string[]>> = {
  throttled: [
    ...["RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"],
    ...["RequestThrottledException", "TooManyRequestsException", "EC2ThrottledException", "SlowDown"],
    ...["BandwidthLimitExceeded", "LimitExceededException", "PriorRequestNotComplete"],
  ],
  transient: [
    ...["InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "ServiceUnavailableException"],
    ...["RequestTimeout", "RequestTimeoutException", "TimeoutError", "NetworkingError", "Server.InternalError"],
  ],
  capacity: [
    ...[
      "InsufficientInstanceCapacity",
      "InsufficientCapacity",
      "InsufficientHostCapacity",
      "InsufficientVolumeCapacity",
    ],
    ...["InsufficientReservedInstanceCapacity", "InsufficientCapacityOnHost", "InsufficientAddressCapacity"],
    ...["SpotMaxPriceTooLow", "UnfulfillableCapacity", "ReservationCapacityExceeded", "CapacityNotAvailable"],
  ],
  "not-offered": ["Unsupported"],
  quota: [
    ...["VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "VolumeLimitExceeded"],
    ...["MaxIOPSLimitExceeded", "NetworkInterfaceLimitExceeded", "AddressLimitExceeded", "ResourceCountExceeded"],
    ...["HostLimitExceeded", "AttachmentLimitExceeded", "Client.VolumeLimitExceeded", "ServiceQuotaExceededException"],
  ],
  "subnet-full": ["InsufficientFreeAddressesInSubnet"],
  setup: [
    ...["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed", "InvalidSubnetID.NotFound"],
    ...["InvalidSubnetID.Malformed", "InvalidSubnet", "InvalidGroup.NotFound", "InvalidGroupId.Malformed"],
    ...["InvalidSecurityGroupID.NotFound", "InvalidKeyPair.NotFound", "InvalidPlacementGroup.Unknown"],
    ...["InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.Malformed", "InvalidHostID.NotFound"],
    ...["InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.VersionNotFound"],
    ...[
      "InvalidInstanceType",
      "InvalidSnapshot.NotFound",
      "InvalidHostId.NotFound",
      "Client.InvalidKMSKey.InvalidState",
    ],
    ...["KMSKeyNotAccessibleFault", "InvalidVpcID.NotFound", "InvalidAvailabilityZone", "DefaultVpcDoesNotExist"],
  ],
  auth: [
    ...["UnauthorizedOperation", "AuthFailure", "AccessDenied", "AccessDeniedException", "Blocked", "OptInRequired"],
    ...["PendingVerification", "InvalidClientTokenId", "SignatureDoesNotMatch", "IncompleteSignature", "NotAuthorized"],
    ...["MissingAuthenticationToken", "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException"],
    ...[
      "CredentialsProviderError",
      "CredentialsError",
      "TokenProviderError",
      "InvalidIdentityToken",
      "IDPCommunicationError",
    ],
  ],
  clock: ["RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture", "InvalidSignatureException"],
  "bad-request": [
    ...["InvalidParameterValue", "InvalidParameterCombination", "InvalidParameter", "InvalidParameterDependency"],
    ...[
      "MissingParameter",
      "UnknownParameter",
      "InvalidBlockDeviceMapping",
      "InvalidUserData.Malformed",
      "InvalidInput",
    ],
    ...["InvalidRequest", "ValidationError", "MalformedQueryString", "InvalidAction", "UnsupportedOperation"],
    ...[
      "TagLimitExceeded",
      "InvalidTagKey.Malformed",
      "InvalidNextToken",
      "InvalidPaginationToken",
      "FilterLimitExceeded",
    ],
    ...["UnsupportedHibernationConfiguration", "InvalidID", "InvalidInterface.IpAddressLimitExceeded"],
  ],
  refused: ["OperationNotPermitted", "IncorrectInstanceState", "IncorrectState", "InvalidState"],
  "not-found": ["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceID"],
  mismatch: ["IdempotentParameterMismatch"],
  ended: ["IdempotentInstanceTerminated"],
  "dry-run": ["DryRunOperation"],
};
const KIND_BY_CODE = new Map(
  Object.entries(KINDS).flatMap(([kind, codes]) => codes.map((code) => [code, kind as AwsFaultKind] as const)),
);

const NETWORK = new Set(NETWORK_ERRORS);

const RULES: Readonly<Record<AwsFaultKind, readonly [FaultCode, string]>> = {
  throttled: ["unavailable", "EC2 throttles this account's requests"],
  transient: ["unavailable", "EC2 did not answer or had an error of its own"],
  capacity: ["resource_exhausted", "EC2 has no capacity"],
  "not-offered": ["resource_exhausted", "the instance type is not offered there"],
  quota: ["resource_exhausted", "an account quota is used up: raise it in the Service Quotas console"],
  "subnet-full": ["resource_exhausted", "the subnet has no free address: add a subnet to providers.aws.subnets"],
  setup: ["failed_precondition", "what the configuration names is not there or cannot be used: see kata-remote check"],
  auth: ["permission_denied", "the credentials are missing, expired or lack a permission: see providers/aws/README.md"],
  clock: ["failed_precondition", "this host's clock is wrong: EC2 takes requests of the last 5 minutes only"],
  "bad-request": ["invalid_argument", "EC2 refuses the request"],
  refused: ["failed_precondition", "EC2 does not allow this in the instance's present state"],
  "not-found": ["not_found", "EC2 knows no such instance"],
  mismatch: ["aborted", "an instance was asked for with the same token and other parameters"],
  ended: ["failed_precondition", "the instance that this operation made has ended"],
  "dry-run": ["internal", "the request was a dry run"],
  unknown: ["internal", "EC2 answered with an error that is not in the table"],
};

const DEFAULT_THROTTLE_MS = 1000;

/**
 * The Fault for whatever an EC2 request threw. Its context has `kind` (AwsFaultKind), `awsCode`, `requestId` and, when
 * waiting helps, `retryAfterMs`; EC2's own words are its cause.
 */
export function toFault(thrown: unknown, action: string, context: FaultContext): Fault {
  if (thrown instanceof Fault) return thrown;
  const error = readError(thrown);
  const [code, meaning] = RULES[error.kind];
  const details: FaultContext = {
    provider: "aws",
    ...context,
    ...{ kind: error.kind, awsCode: error.code, action },
    ...(error.requestId === undefined ? {} : { requestId: error.requestId }),
    ...(error.kind === "throttled" ? { retryAfterMs: error.retryAfterMs ?? DEFAULT_THROTTLE_MS } : {}),
    // What EC2 itself has named, where it has.
    ...(error.retryAfterMs === undefined ? {} : { retryAfterSaid: error.retryAfterMs }),
  };
  const cause = new Error(`${error.code}: ${error.text}`);
  const retryable = error.kind === "capacity" ? { retryable: true } : {};
  return new Fault(code, `${action}: ${meaning}`, details, { cause, ...retryable });
}

/** @returns undefined for a Fault that no EC2 request caused */
export function kindOf(thrown: unknown): AwsFaultKind | undefined {
  if (!(thrown instanceof Fault)) return undefined;
  const { kind } = thrown.context;
  return typeof kind === "string" && kind in RULES ? (kind as AwsFaultKind) : undefined;
}

interface ReadError {
  readonly code: string;
  readonly text: string;
  readonly kind: AwsFaultKind;
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** What the SDK's errors have in common. */
interface SdkError extends Error {
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly requestId?: string };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

function readError(thrown: unknown): ReadError {
  if (!(thrown instanceof Error)) {
    return { code: "unknown", text: String(thrown), kind: "unknown", requestId: undefined, retryAfterMs: undefined };
  }
  const error: SdkError = thrown;
  const network = NETWORK.has(error.code ?? "");
  const code = network ? (error.code ?? "") : error.name;
  const status = error.$metadata?.httpStatusCode ?? 0;
  const seconds = Number(error.$response?.headers?.["retry-after"] ?? Number.NaN);
  return {
    code,
    text: withoutBlob(error.message),
    kind: network ? "transient" : (KIND_BY_CODE.get(code) ?? (status >= 500 ? "transient" : "unknown")),
    requestId: error.$metadata?.requestId,
    retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : undefined,
  };
}

/** EC2 appends kilobytes that only sts:DecodeAuthorizationMessage can read. */
function withoutBlob(message: string): string {
  return message.replace(/ ?Encoded authorization failure message: \S+/, "").trim();
}
