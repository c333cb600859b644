/** The canonical RPC codes: they say what the caller should do, not where it broke. */
export type FaultCode =
  | "invalid_argument"
  | "not_found"
  | "already_exists"
  | "failed_precondition"
  | "permission_denied"
  | "unauthenticated"
  | "resource_exhausted"
  | "unavailable"
  | "aborted"
  | "deadline_exceeded"
  | "cancelled"
  | "unimplemented"
  | "internal";

/** Same keys as the log fields, so that an error and the log line about it can be joined. */
export interface FaultContext {
  readonly sandboxId?: string | undefined;
  readonly instanceId?: string | undefined;
  readonly operationId?: string | undefined;
  readonly provider?: string | undefined;
  readonly region?: string | undefined;
  readonly pod?: string | undefined;
  readonly node?: string | undefined;
  readonly [key: string]: string | number | boolean | undefined;
}

const RETRYABLE: ReadonlySet<FaultCode> = new Set(["unavailable", "aborted", "deadline_exceeded"]);

/** The one error type. The message says what failed, on what, and what to do; it never repeats its cause's text. */
export class Fault extends Error {
  override readonly name: string = "Fault";
  readonly code: FaultCode;
  readonly context: FaultContext;
  readonly retryable: boolean;

  constructor(
    code: FaultCode,
    message: string,
    context: FaultContext = {},
    options: { readonly cause?: unknown; readonly retryable?: boolean } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.context = context;
    this.retryable = options.retryable ?? RETRYABLE.has(code);
  }

  /** Turns anything thrown into a Fault; a Fault passes unchanged. Node's ENOENT/EEXIST/EACCES keep their meaning. */
  static from(thrown: unknown, context: FaultContext = {}): Fault {
    if (thrown instanceof Fault) return thrown;
    if (!(thrown instanceof Error)) return new Fault("internal", String(thrown), context);
    return new Fault(codeOf(thrown), thrown.message, context, { cause: thrown });
  }

  /** Message with the messages of its causes, for people; logs keep the chain itself. */
  get fullMessage(): string {
    const parts: string[] = [];
    for (let e: unknown = this; e instanceof Error; e = e.cause) {
      if (!parts.some((p) => p.includes((e as Error).message))) parts.push((e as Error).message);
    }
    return parts.join(": ");
  }
}

function codeOf(error: Error): FaultCode {
  if (error.name === "AbortError") return "cancelled";
  if (error.name === "TimeoutError") return "deadline_exceeded";
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOENT":
      return "not_found";
    case "EEXIST":
      return "already_exists";
    case "EACCES":
    case "EPERM":
      return "permission_denied";
    case "ENOSPC":
    case "EMFILE":
    case "ENOMEM":
      return "resource_exhausted";
    case "ECONNREFUSED":
    case "ECONNRESET":
    case "EPIPE":
    case "ETIMEDOUT":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return "unavailable";
    default:
      return "internal";
  }
}
