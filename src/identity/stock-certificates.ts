import { createHash, createPrivateKey, createPublicKey, randomBytes, sign, X509Certificate } from "node:crypto";
import {
  bitString,
  booleanTrue,
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
import { newKeyPair } from "./keys.ts";

/** What one VM with the stock image is made with. Nothing of it is used for another VM. */
export interface StockVmIdentity {
  /** Signs this VM's server and the one node that may call it. */
  readonly caPem: string;
  readonly caKeyPem: string;
  /** The forwarder's. */
  readonly certificatePem: string;
  readonly keyPem: string;
}

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** Source: wire contract §3.8. */
const EARLIER_MS = 5 * MINUTE_MS;
const LATER_MS = 730 * DAY_MS;
const FORWARDER = "agent-protocol-forwarder";

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"; // RFC 5758
const COMMON_NAME = "2.5.4.3"; // RFC 5280, as all below
const ORGANIZATION = "2.5.4.10";
const SUBJECT_KEY_ID = "2.5.29.14";
const KEY_USAGE = "2.5.29.15";
const ALTERNATIVE_NAME = "2.5.29.17";
const BASIC_CONSTRAINTS = "2.5.29.19";
const AUTHORITY_KEY_ID = "2.5.29.35";
const EXTENDED_USAGE = "2.5.29.37";
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

/**
 * Keys and certificates for one VM whose forwarder is the stock one: it takes a finished server key, and lets in whoever
 * shows a certificate that leads to its client CA. Each VM has a CA of its own: what one of them gives away opens no other.
 * @param serverName The only name in the server's certificate (CN and DNS SAN)
 */
export function makeStockVmIdentity(serverName: string, now: Date): StockVmIdentity {
  const ca = newKeyPair();
  const server = newKeyPair();
  const caName = name({
    organization: "kata-remote",
    commonName: `pod VM CA ${keyId(ca.publicKeyPem).toString("hex")}`,
  });
  const issuer = { name: caName, keyPem: ca.keyPem, publicKeyPem: ca.publicKeyPem };
  return {
    caKeyPem: ca.keyPem,
    caPem: issue(issuer, { subject: caName, publicKeyPem: ca.publicKeyPem, now }, [
      extension(BASIC_CONSTRAINTS, sequence(booleanTrue(), integer(Buffer.of(0))), true),
      extension(KEY_USAGE, namedBits(0x84, 2), true), // digitalSignature, keyCertSign
      extension(SUBJECT_KEY_ID, octetString(keyId(ca.publicKeyPem))),
    ]),
    keyPem: server.keyPem,
    certificatePem: issue(
      issuer,
      { subject: name({ organization: FORWARDER, commonName: serverName }), publicKeyPem: server.publicKeyPem, now },
      [...leaf(SERVER_AUTH), extension(ALTERNATIVE_NAME, sequence(taggedBytes(2, Buffer.from(serverName, "ascii"))))],
    ),
  };
}

/**
 * The certificate with which a node calls the VM: a client's, O=kata-remote, CN=`commonName`.
 * @param vm What makeStockVmIdentity gave for that VM
 */
export function signStockClient(
  vm: Pick<StockVmIdentity, "caPem" | "caKeyPem">,
  client: { readonly publicKeyPem: string; readonly commonName: string },
  now: Date,
): string {
  const publicKeyPem = createPublicKey(vm.caKeyPem).export({ type: "spki", format: "pem" }) as string;
  const issuer = { name: subjectOf(vm.caPem), keyPem: vm.caKeyPem, publicKeyPem };
  const subject = name({ organization: "kata-remote", commonName: client.commonName });
  return issue(issuer, { subject, publicKeyPem: client.publicKeyPem, now }, leaf(CLIENT_AUTH));
}

interface Issuer {
  /** DER of its Name. */
  readonly name: Buffer;
  readonly keyPem: string;
  readonly publicKeyPem: string;
}

function issue(
  issuer: Issuer,
  to: { readonly subject: Buffer; readonly publicKeyPem: string; readonly now: Date },
  extensions: readonly Buffer[],
): string {
  const at = to.now.getTime();
  const body = sequence(
    tagged(0, integer(Buffer.of(2))), // version 3
    integer(randomBytes(16)),
    algorithm(),
    issuer.name,
    sequence(time(at - EARLIER_MS), time(at + LATER_MS)),
    to.subject,
    spki(to.publicKeyPem),
    tagged(
      3,
      sequence(...extensions, extension(AUTHORITY_KEY_ID, sequence(taggedBytes(0, keyId(issuer.publicKeyPem))))),
    ),
  );
  const der = sequence(body, algorithm(), bitString(sign("sha256", body, createPrivateKey(issuer.keyPem))));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function leaf(usage: string): Buffer[] {
  return [
    extension(BASIC_CONSTRAINTS, sequence(), true),
    extension(KEY_USAGE, namedBits(0x80, 7), true), // digitalSignature
    extension(EXTENDED_USAGE, sequence(objectIdentifier(usage))),
  ];
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(objectIdentifier(id), ...(critical ? [booleanTrue()] : []), octetString(value));
}

function algorithm(): Buffer {
  return sequence(objectIdentifier(ECDSA_WITH_SHA256));
}

function name(parts: { readonly organization: string; readonly commonName: string }): Buffer {
  return sequence(
    set(sequence(objectIdentifier(ORGANIZATION), utf8String(parts.organization))),
    set(sequence(objectIdentifier(COMMON_NAME), utf8String(parts.commonName))),
  );
}

/** Our own CA's name again; names of one certificate must be the same bytes in the other. */
function subjectOf(caPem: string): Buffer {
  const subject = new X509Certificate(caPem).toLegacyObject().subject;
  return name({ organization: String(subject.O), commonName: String(subject.CN) });
}

function spki(publicKeyPem: string): Buffer {
  return createPublicKey(publicKeyPem).export({ type: "spki", format: "der" });
}

function keyId(publicKeyPem: string): Buffer {
  return createHash("sha256").update(spki(publicKeyPem)).digest().subarray(0, 20);
}

/** Two-digit years: they end in 2049. */
function time(ms: number): Buffer {
  return utcTime(`${new Date(ms).toISOString().slice(2, 19).replace(/[-:T]/g, "")}Z`);
}
