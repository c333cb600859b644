/** One entry of `error.details`. */
export interface ErrorDetail {
  readonly code: string;
  readonly message: string;
  readonly target?: string;
}

/** What the service answers to a request that it refuses. Source: ARM RPC "common-api-details", error response content. */
export class ArmError extends Error {
  override readonly name = "ArmError";
  readonly status: number;
  readonly code: string;
  readonly target: string | undefined;
  readonly details: readonly ErrorDetail[] | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: string,
    message: string,
    more: {
      readonly target?: string;
      readonly details?: readonly ErrorDetail[];
      readonly headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.target = more.target;
    this.details = more.details;
    this.headers = more.headers ?? {};
  }
}

export function renderError(e: ArmError): { readonly error: Readonly<Record<string, unknown>> } {
  const { code, message, target, details } = e;
  return { error: { code, message, ...(target && { target }), ...(details && { details }) } };
}

/** Compute's answer to a value it cannot take. Source: "Required parameter 'x' is missing (null)." and others of CRP. */
export function invalidParameter(target: string, message: string): ArmError {
  return new ArmError(400, "InvalidParameter", message, { target });
}

export function missingParameter(target: string): ArmError {
  return invalidParameter(target, `Required parameter '${target}' is missing (null).`);
}

export function badRequest(message: string): ArmError {
  return new ArmError(400, "BadRequest", message);
}

/** Azure has it, this endpoint does not: a test must not get here unnoticed. */
export function notImplemented(what: string): ArmError {
  return new ArmError(501, "NotImplementedByTestEndpoint", `${what} is not implemented by this test endpoint`);
}
