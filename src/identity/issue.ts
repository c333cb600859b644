import { createHash, createPublicKey, type KeyObject, randomBytes, sign, verify } from "node:crypto";
import { Fault } from "../base/fault.ts";
import {
  bitString,
  booleanTrue,
  type Element,
  elements,
  generalizedTime,
  integer,
  namedBits,
  objectIdentifier,
  octetString,
  sequence,
  set,
  tagged,
  taggedBytes,
  utcTime,
  utf8String,
} from "./der.ts";

/** Who signs a certificate. */
export interface Issuer {
  /** DER of its Name. */
  readonly name: Buffer;
  readonly key: KeyObject;
  /** As its own certificate has it: a verifier compares the two. */
  readonly keyId: Buffer;
}

/** What is certified. */
export interface Subject {
  /** DER of its Name. */
  readonly name: Buffer;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  /** ms since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
}

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"; // RFC 5758
const COMMON_NAME = "2.5.4.3"; // RFC 5280, as all below
const ORGANIZATION = "2.5.4.10";
const SUBJECT_KEY_ID = "2.5.29.14";
const KEY_USAGE = "2.5.29.15";
const ALTERNATIVE_NAME = "2.5.29.17";
const BASIC_CONSTRAINTS = "2.5.29.19";
const AUTHORITY_KEY_ID = "2.5.29.35";
const EXTENDED_USAGE = "2.5.29.37";
export const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
export const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
/** KeyUsage: the byte, and how many of its last bits are not there. */
const USAGE = { digitalSignature: [0x80, 7], certSign: [0x84, 2], certAndCrlSign: [0x06, 1] } as const;
/** UTCTime has two digits for the year, and ends here (RFC 5280 §4.1.2.5). */
const FIRST_GENERALIZED = Date.UTC(2050, 0, 1);

/** An X.509 v3 certificate, PEM, signed with ECDSA and SHA-256. */
export function issue(issuer: Issuer, subject: Subject, extensions: readonly Buffer[]): string {
  const body = sequence(
    tagged(0, integer(Buffer.of(2))), // version 3
    integer(newSerial()),
    sequence(objectIdentifier(ECDSA_WITH_SHA256)),
    issuer.name,
    sequence(time(subject.notBefore), time(subject.notAfter)),
    subject.name,
    subject.spki,
    tagged(3, sequence(...extensions, extension(AUTHORITY_KEY_ID, sequence(taggedBytes(0, issuer.keyId))))),
  );
  const signature = bitString(sign("sha256", body, issuer.key));
  const der = sequence(body, sequence(objectIdentifier(ECDSA_WITH_SHA256)), signature);
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

/** What makes a certificate one of an authority whose certificates sign nobody else. */
export function authorityExtensions(keyId: Buffer, usage: "certSign" | "certAndCrlSign"): Buffer[] {
  const [byte, unused] = USAGE[usage];
  return [
    extension(BASIC_CONSTRAINTS, sequence(booleanTrue(), integer(Buffer.of(0))), true),
    extension(KEY_USAGE, namedBits(byte, unused), true),
    extension(SUBJECT_KEY_ID, octetString(keyId)),
  ];
}

/** What makes a certificate one of a TLS peer; `names` are DNS names, or IP addresses as their bytes. */
export function leafExtensions(
  usage: string,
  options: { readonly critical?: boolean; readonly names?: readonly (string | Buffer)[] } = {},
): Buffer[] {
  const { critical = false, names = [] } = options;
  const general = names.map((n) =>
    typeof n === "string" ? taggedBytes(2, Buffer.from(n, "ascii")) : taggedBytes(7, n),
  );
  return [
    extension(BASIC_CONSTRAINTS, sequence(), true),
    extension(KEY_USAGE, namedBits(...USAGE.digitalSignature), true),
    extension(EXTENDED_USAGE, sequence(objectIdentifier(usage)), critical),
    ...(general.length === 0 ? [] : [extension(ALTERNATIVE_NAME, sequence(...general))]),
  ];
}

/** DER of a Name. */
export function nameOf(parts: { readonly organization?: string; readonly commonName: string }): Buffer {
  const part = (id: string, text: string): Buffer => set(sequence(objectIdentifier(id), utf8String(text)));
  const { organization, commonName } = parts;
  return sequence(
    ...(organization === undefined ? [] : [part(ORGANIZATION, organization)]),
    part(COMMON_NAME, commonName),
  );
}

/** What names a key in certificates of ours: 20 bytes. */
export function keyIdOf(spki: Buffer): Buffer {
  return createHash("sha256").update(spki).digest().subarray(0, 20);
}

/** The issuer whose certificate this is: name and key id are taken as they stand in there. @throws RangeError */
export function issuerOf(certificatePem: string, key: KeyObject): Issuer {
  // version, serial, algorithm, issuer, validity, subject, key, extensions
  const fields = elements(inner(derOf(certificatePem, "CERTIFICATE"), 0));
  const [name, extensions] = [fields[5], fields.find((field) => field.tag === 0xa3)];
  const wanted = objectIdentifier(SUBJECT_KEY_ID);
  const list = extensions === undefined ? [] : elements(inner(extensions.value));
  const found = list.map((e) => elements(e.value)).find(([id]) => id?.whole.equals(wanted));
  const keyId = found?.at(-1);
  if (name === undefined || keyId === undefined) throw new RangeError("a certificate without subject or key id");
  return { name: name.whole, key, keyId: inner(keyId.value) };
}

/**
 * The key of a PKCS#10 request that its owner signed. Only P-256: the one kind of key that our guests and nodes make.
 * @returns SubjectPublicKeyInfo as OpenSSL writes it
 * @throws Fault invalid_argument
 * Source: RFC 2986 §4
 */
export function verifiedKey(csrPem: string): Buffer {
  let key: KeyObject;
  let valid: boolean;
  try {
    const [info, algorithm, signature] = elements(inner(derOf(csrPem, "CERTIFICATE REQUEST")));
    const spki = info && elements(info.value)[2]; // version, subject, subjectPKInfo
    if (spki === undefined || algorithm === undefined || signature?.tag !== 0x03)
      throw new RangeError("a request without key or signature");
    key = createPublicKey({ key: spki.whole, format: "der", type: "spki" });
    valid =
      key.asymmetricKeyDetails?.namedCurve === "prime256v1" &&
      elements(algorithm.value)[0]?.whole.equals(objectIdentifier(ECDSA_WITH_SHA256)) === true &&
      verify("sha256", info?.whole ?? Buffer.alloc(0), key, signature.value.subarray(1)); // whole bytes
  } catch (cause) {
    throw new Fault("invalid_argument", "the certificate request is not a PEM PKCS#10 request", {}, { cause });
  }
  if (!valid) throw new Fault("invalid_argument", "the certificate request is not signed by its own ECDSA P-256 key");
  return key.export({ type: "spki", format: "der" });
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(objectIdentifier(id), ...(critical ? [booleanTrue()] : []), octetString(value));
}

/** The content of one PEM block, which is one value. @throws RangeError */
function derOf(pem: string, label: string): Buffer {
  const base64 = new RegExp(
    `-----BEGIN (?:NEW )?${label}-----([A-Za-z0-9+/=\\s]+)-----END (?:NEW )?${label}-----`,
  ).exec(pem);
  if (base64 === null) throw new RangeError(`no PEM block "${label}"`);
  return Buffer.from(base64[1] ?? "", "base64");
}

/** What is inside of the only value of a buffer, or inside of one of its parts. @throws RangeError */
function inner(der: Buffer, part?: number): Buffer {
  const [whole, ...more]: Element[] = elements(der);
  if (whole === undefined || more.length > 0) throw new RangeError("not one DER value");
  if (part === undefined) return whole.value;
  const found = elements(whole.value)[part];
  if (found === undefined) throw new RangeError(`no part ${part} in a DER value`);
  return found.value;
}

/** 16 bytes, positive, none of them in vain: the first bit is clear, the second is set. */
function newSerial(): Buffer {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes;
}

function time(ms: number): Buffer {
  const digits = `${new Date(ms).toISOString().slice(0, 19).replace(/[-:T]/g, "")}Z`;
  return ms < FIRST_GENERALIZED ? utcTime(digits.slice(2)) : generalizedTime(digits);
}
