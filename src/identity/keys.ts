import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import { Fault } from "../base/fault.ts";
import {
  bitString,
  elements,
  generalizedTime,
  integer,
  objectIdentifier,
  sequence,
  set,
  tagged,
  utcTime,
  utf8String,
} from "./der.ts";

// Requests are written here by hand and not with @peculiar/x509: loading that library costs a guest seconds of its
// boot under emulation (78 ms on the host, measured), and a request is five nested values.

/** ECDSA P-256, both PEM: PKCS#8 and SPKI. */
export interface KeyPair {
  readonly keyPem: string;
  readonly publicKeyPem: string;
}

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"; // RFC 5758
const COMMON_NAME = "2.5.4.3"; // RFC 5280

/** A new ECDSA P-256 key. */
export function newKeyPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  return { keyPem: privateKey, publicKeyPem: publicKey };
}

/** PKCS#10 request (RFC 2986) for a key of newKeyPair; the signer decides the names, `commonName` is only a hint. */
export function makeCsr(keyPem: string, commonName: string): string {
  const info = sequence(integer(Buffer.of(0)), nameOf(commonName), spkiOf(keyPem), tagged(0));
  return pem("CERTIFICATE REQUEST", signed(info, keyPem));
}

/**
 * A certificate that proves nothing but the possession of its key: what a guest shows before it has been signed.
 * Valid from 2000 to 9999, since the guest's clock may not be set yet.
 */
export function makeSelfSigned(keyPem: string, commonName: string): string {
  const name = nameOf(commonName);
  const validity = sequence(utcTime("000101000000Z"), generalizedTime("99991231235959Z"));
  const version3 = tagged(0, integer(Buffer.of(2)));
  const serial = integer(randomBytes(15));
  const body = sequence(version3, serial, algorithm(), name, validity, name, spkiOf(keyPem));
  return pem("CERTIFICATE", signed(body, keyPem));
}

/**
 * Lower-case hex sha256 of the SubjectPublicKeyInfo (DER) in a certificate, request, public or private key (PEM).
 * It is the same for all four of one key.
 * @throws Fault invalid_argument when the text is none of these
 */
export function spkiFingerprint(pemText: string): string {
  return createHash("sha256").update(publicKeyInfo(pemText)).digest("hex");
}

function publicKeyInfo(pemText: string): Buffer {
  const label = /-----BEGIN ([A-Z ]+)-----/.exec(pemText)?.[1];
  try {
    switch (label) {
      case "CERTIFICATE":
        return new X509Certificate(pemText).publicKey.export({ type: "spki", format: "der" });
      case "CERTIFICATE REQUEST":
      case "NEW CERTIFICATE REQUEST":
        return requestKey(pemText);
      case "PUBLIC KEY":
      case "PRIVATE KEY":
      case "EC PRIVATE KEY":
        return spkiOf(pemText);
      default:
        throw new Fault(
          "invalid_argument",
          `${label ?? "text without a PEM label"} is neither certificate, request nor key`,
        );
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause;
    throw new Fault("invalid_argument", `PEM block "${label}" cannot be read`, {}, { cause });
  }
}

function requestKey(pemText: string): Buffer {
  const base64 = pemText.split(/-----[A-Z ]+-----/)[1] ?? "";
  const outer = elements(Buffer.from(base64, "base64"))[0];
  const info = outer && elements(outer.value)[0];
  const key = info && elements(info.value)[2]; // version, subject, subjectPKInfo
  if (key === undefined) throw new RangeError("no public key inside of the request");
  // Re-encoded by OpenSSL, so that one key cannot have two fingerprints.
  return createPublicKey({ key: key.whole, format: "der", type: "spki" }).export({ type: "spki", format: "der" });
}

function spkiOf(keyPem: string): Buffer {
  return createPublicKey(keyPem).export({ type: "spki", format: "der" });
}

function nameOf(commonName: string): Buffer {
  return sequence(set(sequence(objectIdentifier(COMMON_NAME), utf8String(commonName))));
}

function algorithm(): Buffer {
  return sequence(objectIdentifier(ECDSA_WITH_SHA256));
}

function signed(body: Buffer, keyPem: string): Buffer {
  return sequence(body, algorithm(), bitString(sign("sha256", body, createPrivateKey(keyPem))));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
