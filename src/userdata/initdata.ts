import { gunzipSync, gzipSync } from "node:zlib";
import { Fault } from "../base/fault.ts";

const ALGORITHMS = ["sha256", "sha384", "sha512"];
/** Without it the stock image's units never start: the attestation agent waits for this file. Source: wire contract §3.6. */
const NEEDED = "aa.toml";
/** What a decompressed initdata may have, bytes: more is no configuration. */
const MAX_BYTES = 4 * 1024 * 1024;

/**
 * Checks initdata and brings it into the form that the stock image reads: base64 (padded) of gzip of the TOML.
 * The TOML's bytes stay as they are, since their digest is measured.
 * @throws Fault invalid_argument saying what the stock image would stumble over
 * Source: wire contract §3.7
 */
export async function encodeInitdata(toml: string): Promise<string> {
  await checkInitdata(toml);
  return gzipSync(toml, { level: 9 }).toString("base64");
}

/**
 * The TOML inside of the annotation's and INITDATA's form.
 * @throws Fault invalid_argument
 */
export function decodeInitdata(encoded: string): string {
  try {
    return gunzipSync(Buffer.from(encoded.replace(/\s+/g, ""), "base64"), { maxOutputLength: MAX_BYTES }).toString(
      "utf8",
    );
  } catch (cause) {
    throw invalid("it is not base64 of gzip", cause);
  }
}

/** @throws Fault invalid_argument */
export async function checkInitdata(toml: string): Promise<void> {
  const { parse } = await import("smol-toml"); // the guest, which has no initdata to check, need not load it
  let document: Record<string, unknown>;
  try {
    document = parse(toml);
  } catch (cause) {
    throw invalid("it is not TOML", cause);
  }
  const { algorithm, version, data } = document;
  if (!ALGORITHMS.includes(String(algorithm)))
    throw invalid(`algorithm is ${JSON.stringify(algorithm)}: one of ${ALGORITHMS.join(", ")} is expected`);
  if (typeof version !== "string") throw invalid('version is missing: "0.1.0" is in use');
  if (typeof data !== "object" || data === null) throw invalid("it has no table [data]");
  for (const [key, value] of Object.entries(data))
    if (typeof value !== "string") throw invalid(`data."${key}" is not a string`);
  if (!(NEEDED in data))
    throw invalid(
      `[data] has no "${NEEDED}": without it the stock image's attestation agent, and so its kata-agent, never starts; add it (it may be empty), or use no initdata`,
    );
}

function invalid(problem: string, cause?: unknown): Fault {
  return new Fault("invalid_argument", `initdata cannot be used: ${problem}`, {}, cause === undefined ? {} : { cause });
}
