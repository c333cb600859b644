import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { ApiError } from "./api-error.ts";

/** A key pair that the endpoint knows. */
export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Set for temporary ones: the request must carry it. */
  readonly sessionToken?: string;
}

export interface SignedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string | Uint8Array;
}

/** How far a request's date may be off, ms. */
const MAX_SKEW_MS = 5 * 60_000;
const FORM =
  /^AWS4-HMAC-SHA256 Credential=(?<key>[^/, ]+)\/(?<day>\d{8})\/(?<region>[a-z0-9-]+)\/(?<service>[a-z0-9]+)\/aws4_request, ?SignedHeaders=(?<signed>[a-z0-9;-]+), ?Signature=(?<signature>[0-9a-f]{64})$/;

/**
 * Checks Signature Version 4 as the service does: who signed, for which region and service, when, and the signature.
 * Source: AWS General Reference, "Create a signed AWS API request".
 * @throws ApiError AuthFailure, SignatureDoesNotMatch, RequestExpired
 */
export function checkSignature(
  request: SignedRequest,
  expected: {
    readonly region: string;
    readonly service: "ec2" | "ebs";
    readonly known: readonly Credentials[];
    readonly now: number;
  },
): Credentials {
  const parts = FORM.exec(request.headers.authorization ?? "")?.groups;
  if (parts === undefined)
    throw denied("the Authorization header is missing or has not the form of Signature Version 4");
  const { key = "", day = "", region = "", service = "", signed = "", signature = "" } = parts;
  const credentials = expected.known.find((c) => c.accessKeyId === key);
  if (credentials === undefined) throw denied("the access key is not known");
  if (region !== expected.region || service !== expected.service)
    throw denied(`the credential scope is ${region}/${service}`);
  if (credentials.sessionToken !== undefined && request.headers["x-amz-security-token"] !== credentials.sessionToken) {
    throw denied("the session token is missing or wrong");
  }
  const names = signed.split(";");
  for (const needed of ["host", "x-amz-date"]) {
    if (!names.includes(needed)) throw denied(`${needed} is not among the signed headers`);
  }
  const date = String(request.headers["x-amz-date"] ?? "");
  checkDate(date, day, expected.now);
  const calculated = sign(request, { credentials, date, day, region, service, names });
  if (!timingSafeEqual(Buffer.from(calculated, "hex"), Buffer.from(signature, "hex"))) {
    throw new ApiError(
      "SignatureDoesNotMatch",
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
    );
  }
  return credentials;
}

function sign(
  request: SignedRequest,
  parts: {
    readonly credentials: Credentials;
    readonly date: string;
    readonly day: string;
    readonly region: string;
    readonly service: string;
    readonly names: readonly string[];
  },
): string {
  const { credentials, date, day, region, service, names } = parts;
  const headers = names
    .map(
      (n) =>
        `${n}:${String(request.headers[n] ?? "")
          .trim()
          .replace(/ +/g, " ")}\n`,
    )
    .join("");
  const [path = "/", query = ""] = request.path.split("?");
  const sorted = query.split("&").sort().join("&");
  const canonical = [request.method, path, sorted, headers, names.join(";"), payloadOf(request, service)].join("\n");
  const toSign = ["AWS4-HMAC-SHA256", date, `${day}/${region}/${service}/aws4_request`, sha256(canonical)].join("\n");
  const secret = [day, region, service, "aws4_request"].reduce<string | Buffer>(
    (k, part) => createHmac("sha256", k).update(part).digest(),
    `AWS4${credentials.secretAccessKey}`,
  );
  return createHmac("sha256", secret).update(toSign).digest("hex");
}

/** EBS leaves it to its own checksums whether a block's content is signed. Source: EBS' service model, "v4-unsigned-body". */
function payloadOf({ headers, body }: SignedRequest, service: string): string {
  const unsigned = headers["x-amz-content-sha256"] === "UNSIGNED-PAYLOAD" && service === "ebs";
  return unsigned ? "UNSIGNED-PAYLOAD" : sha256(body);
}

function checkDate(date: string, day: string, now: number): void {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  if (parts === null || !date.startsWith(day)) throw denied("X-Amz-Date is missing or of another day than the scope");
  const at = Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
  if (Math.abs(at - now) > MAX_SKEW_MS)
    throw new ApiError("RequestExpired", `Request has expired. Timestamp date is ${date}`);
}

function denied(detail: string): ApiError {
  return new ApiError("AuthFailure", `AWS was not able to validate the provided access credentials: ${detail}`);
}

function sha256(text: string | Uint8Array): string {
  return createHash("sha256").update(text).digest("hex");
}

/** The access key that a request names; "" when it names none. */
export function keyOf({
  headers,
}: {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}): string {
  return /Credential=([^/]+)\//.exec(String(headers.authorization ?? ""))?.[1] ?? "";
}
