import { createHash, type Hash } from "node:crypto";
import { Fault } from "../../base/fault.ts";

const LENGTHS: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

/** @throws Fault invalid_argument for what is no digest, unimplemented for an algorithm that is not checked here */
export function checkDigest(digest: string, what: string): string {
  const [, algorithm = "", hex = ""] = /^([a-z0-9]+):([0-9a-f]+)$/.exec(digest) ?? [];
  const length = LENGTHS[algorithm];
  if (algorithm !== "" && length === undefined)
    throw new Fault("unimplemented", `${what} has digest "${digest}": sha256 and sha512 are checked here`);
  if (hex.length !== length) throw new Fault("invalid_argument", `${what} has digest "${digest}", which is none`);
  return digest;
}

/** Hash of a digest's algorithm. */
export function hashFor(digest: string): Hash {
  return createHash(digest.slice(0, digest.indexOf(":")));
}

/** @throws Fault aborted when the bytes are others than the digest says */
export function verifyDigest(bytes: Uint8Array, digest: string, what: string): void {
  requireDigest(hashFor(digest).update(bytes), digest, what);
}

/** @throws Fault aborted when what was hashed is not what the digest says */
export function requireDigest(hash: Hash, digest: string, what: string): void {
  const actual = `${digest.slice(0, digest.indexOf(":"))}:${hash.digest("hex")}`;
  if (actual === digest) return;
  throw new Fault(
    "aborted",
    `${what} should have digest ${digest}, what came has ${actual}: it was tampered with or damaged`,
    {},
    { retryable: false },
  );
}
