import { createHash, type KeyObject } from "node:crypto";
import { Fault } from "../base/fault.ts";

/** SHA-256 of a SubjectPublicKeyInfo in DER, hex: what a guest's key is pinned by. */
export function fingerprint(spkiDer: Uint8Array): string {
  return createHash("sha256").update(spkiDer).digest("hex");
}

/** Fingerprint of a key as a TLS peer proved to hold it. */
export function fingerprintOfKey(key: KeyObject): string {
  return fingerprint(key.export({ type: "spki", format: "der" }));
}

/**
 * Fingerprint of the key inside a PKCS #10 request. Its signature is not checked: the signer does that.
 * @throws Fault invalid_argument when it is not a request
 * Source: RFC 2986 §4: SEQUENCE { SEQUENCE { version INTEGER, subject SEQUENCE, subjectPKInfo SEQUENCE, … }, … }
 */
export function fingerprintOfCsr(csrPem: string): string {
  const body = /-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END/.exec(csrPem)?.[1];
  if (body === undefined) throw broken();
  const der = Buffer.from(body, "base64");
  const request = element(der, 0, 0x30);
  const info = element(der, request.start, 0x30);
  const version = element(der, info.start, 0x02);
  const subject = element(der, version.end, 0x30);
  const key = element(der, subject.end, 0x30);
  if (key.end > info.end || info.end > request.end) throw broken();
  return fingerprint(der.subarray(subject.end, key.end));
}

/** Bounds of the content of the DER element at `offset`. */
function element(der: Buffer, offset: number, tag: number): { readonly start: number; readonly end: number } {
  if (der[offset] !== tag) throw broken();
  const first = der[offset + 1] ?? 0;
  const more = first < 0x80 ? 0 : first - 0x80;
  if (more > 3 || offset + 2 + more > der.length) throw broken();
  const length = more === 0 ? first : der.readUIntBE(offset + 2, more);
  const start = offset + 2 + more;
  if (start + length > der.length || first === 0x80) throw broken();
  return { start, end: start + length };
}

function broken(): Fault {
  return new Fault("invalid_argument", "the guest's certificate request is not a PKCS #10 request");
}
