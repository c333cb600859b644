import { setTimeout as delay } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { Fault } from "../../base/fault.ts";
import { type HttpReply, type HttpRequest, httpRequest } from "./http-request.ts";

/** What one round of requests to a cloud's metadata service has found. */
type Answer =
  | { readonly kind: "data"; readonly data: Buffer }
  /** There is none, and there will be none. */
  | { readonly kind: "none"; readonly reason: string }
  /** Not yet. */
  | { readonly kind: "later"; readonly reason: string };

type Ask = (request: Omit<HttpRequest, "host">) => Promise<HttpReply>;

export interface MetadataOptions {
  /** "host:port", for tests. */
  readonly host?: string;
  /** How long the network and the service may take, ms. */
  readonly patienceMs?: number;
  readonly signal: AbortSignal;
}

/** The same link-local address in both clouds. */
const HOST = "169.254.169.254";
/** A pod VM that nobody can use costs money: it switches itself off after that, ms. */
const PATIENCE_MS = 120_000;
const REQUEST_TIMEOUT_MS = 2000;
/** While the network comes up every request fails at once. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;
/** Of what was compressed. */
const MAX_TEXT_BYTES = 256 * 1024;

/**
 * User-data of an EC2 instance, through version 2 of the metadata service only: a token first.
 * @throws Fault not_found when the instance has none; failed_precondition; unavailable when the service does not answer
 * Source: EC2 user guide, "Access instance metadata for an EC2 instance", its error codes among them.
 */
export function awsUserData(options: MetadataOptions): Promise<string> {
  return untilAnswered("EC2", options, async (ask) => {
    const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
    const token = await ask({ method: "PUT", path: "/latest/api/token", headers: ttl });
    if (token.status === 403) return none("the metadata service is switched off for this instance");
    if (token.status !== 200) return later(`no token, status ${token.status}`);
    const headers = { "x-aws-ec2-metadata-token": token.body.toString("latin1") };
    const { status, body } = await ask({ method: "GET", path: "/latest/user-data", headers });
    if (status === 404) return none("the instance was started without user-data");
    return status === 200 ? { kind: "data", data: body } : later(`status ${status}`);
  });
}

/**
 * User-data (not custom data) of an Azure VM.
 * @throws Fault not_found when the VM has none; unavailable when the service does not answer
 * Source: Azure, "Instance Metadata Service": user data, and its status codes; 404, 410, 429 and 5xx may pass.
 */
export function azureUserData(options: MetadataOptions): Promise<string> {
  const path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
  return untilAnswered("Azure", options, async (ask) => {
    const { status, body } = await ask({ method: "GET", path, headers: { metadata: "true" } });
    if (status !== 200) return later(`status ${status}`);
    const text = body.toString("latin1").trim();
    if (text === "") return none("the VM was made without userData");
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return none("userData is not base64");
    return { kind: "data", data: Buffer.from(text, "base64") };
  });
}

/** Asks until there is an answer, however long the network takes to come up. */
async function untilAnswered(cloud: string, o: MetadataOptions, round: (ask: Ask) => Promise<Answer>): Promise<string> {
  const { host = HOST, patienceMs = PATIENCE_MS, signal } = o;
  const ask: Ask = (request) =>
    httpRequest({ ...request, host }, AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]));
  const end = performance.now() + patienceMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE_MS)) {
    const answer = await round(ask).catch((e: unknown) => later((e as Error).message));
    if (answer.kind === "data") return textOf(cloud, answer.data);
    if (answer.kind === "none") throw new Fault("not_found", `no user-data from ${cloud}: ${answer.reason}`);
    if (performance.now() + pause > end) {
      const seconds = Math.round(patienceMs / 1000);
      throw new Fault(
        "unavailable",
        `no user-data from ${cloud}'s metadata service (${host}) in ${seconds} s: ${answer.reason}`,
      );
    }
    await delay(pause, undefined, { signal });
  }
}

/** User-data is as small as a cloud insists on, and may be compressed for that. */
function textOf(cloud: string, data: Buffer): string {
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data.toString("utf8");
  try {
    return gunzipSync(data, { maxOutputLength: MAX_TEXT_BYTES }).toString("utf8");
  } catch (cause) {
    throw new Fault(
      "invalid_argument",
      `user-data from ${cloud} looks compressed but cannot be unpacked to at most ${MAX_TEXT_BYTES} bytes`,
      {},
      { cause },
    );
  }
}

function none(reason: string): Answer {
  return { kind: "none", reason };
}

function later(reason: string): Answer {
  return { kind: "later", reason };
}
