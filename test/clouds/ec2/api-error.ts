/** An error that EC2 answers with: the caller sees code and message, the status is the one EC2 uses for the code. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: string;
  readonly status: number;
  /** What the EBS direct APIs say beside the code. */
  readonly reason: string | undefined;

  constructor(code: string, message: string, status = STATUS[code] ?? 400, reason?: string) {
    super(message);
    this.code = code;
    this.status = status;
    this.reason = reason;
  }
}

/** Those that are not 400. Source: EC2 API reference, "Error codes"; capacity errors are server errors to EC2. */
const STATUS: Readonly<Record<string, number>> = {
  AuthFailure: 401,
  UnauthorizedOperation: 403,
  SignatureDoesNotMatch: 403,
  Blocked: 403,
  DryRunOperation: 412,
  InsufficientInstanceCapacity: 500,
  InsufficientHostCapacity: 500,
  InternalError: 500,
  InternalFailure: 500,
  RequestLimitExceeded: 503,
  ServiceUnavailable: 503,
  Unavailable: 503,
};

/** What the endpoint cannot do though the real service can: loud, so that no test passes by it. */
export function notImplemented(what: string): ApiError {
  return new ApiError("NotImplementedByTestEndpoint", `this test endpoint does not implement ${what}`, 501);
}
