import { createPrivateKey, createPublicKey, randomBytes, type webcrypto } from "node:crypto";
import { isIP } from "node:net";
import { join } from "node:path";
import type * as X509 from "@peculiar/x509";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../base/files.ts";
import { newKeyPair, spkiFingerprint } from "./keys.ts";
import { nodeCommonName } from "./names.ts";

const P256 = { name: "ECDSA", namedCurve: "P-256" } as const;
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" } as const;
const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
const CA_YEARS = 20;
/** Long, because a pod's certificate cannot be renewed while the pod runs. */
const LEAF_YEARS = 10;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

/**
 * Signs the certificates of one cluster: nodes are TLS clients, guests are TLS servers.
 * Its key lives in `ca.key` (0600) in the directory it was opened with; whoever has that file can be any node.
 */
export class CertificateAuthority {
  readonly caPem: string;
  readonly #certificate: X509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #x509: typeof X509;
  readonly #now: () => Date;

  private constructor(parts: {
    x509: typeof X509;
    certificate: X509.X509Certificate;
    key: webcrypto.CryptoKey;
    now: () => Date;
  }) {
    this.#x509 = parts.x509;
    this.#certificate = parts.certificate;
    this.#key = parts.key;
    this.#now = parts.now;
    this.caPem = `${parts.certificate.toString("pem")}\n`;
  }

  /**
   * Opens the authority in `dir`, or makes it. The key is written before the certificate: a crash in between is
   * repaired by the next open, and no certificate ever loses its key.
   * @throws Fault failed_precondition when key and certificate there do not belong together, or the certificate has ended
   */
  static async open(dir: string, options: { readonly now?: () => Date } = {}): Promise<CertificateAuthority> {
    const now = options.now ?? (() => new Date());
    const x509 = await loadX509();
    await mkdirPrivate(dir);
    const keyPath = join(dir, "ca.key");
    const certificatePath = join(dir, "ca.crt");
    let keyPem = await readIfThere(keyPath);
    let pem = await readIfThere(certificatePath);
    if (keyPem === undefined) {
      if (pem !== undefined) {
        throw new Fault(
          "failed_precondition",
          `${keyPath} is missing beside ca.crt: restore it, or remove ca.crt to start a new CA`,
        );
      }
      keyPem = newKeyPair().keyPem;
      await writeFileAtomic(keyPath, keyPem);
    }
    const key = await importKey(keyPem);
    if (pem === undefined) {
      pem = await selfSign(x509, key, keyPem, now());
      await writeFileAtomic(certificatePath, pem);
    }
    const certificate = new x509.X509Certificate(pem);
    if (spkiFingerprint(pem) !== spkiFingerprint(keyPem)) {
      throw new Fault("failed_precondition", `${certificatePath} was not made for ca.key beside it: restore the pair`);
    }
    if (certificate.notAfter <= now()) {
      const ended = certificate.notAfter.toISOString();
      throw new Fault(
        "failed_precondition",
        `${certificatePath} ended on ${ended}: remove ca.key and ca.crt, then restart all nodes and pods`,
      );
    }
    return new CertificateAuthority({ x509, certificate, key, now });
  }

  /**
   * A client certificate, CN `node:<id>`, for the gRPC connection to the adaptor and for agent tunnels.
   * @throws Fault invalid_argument when the request is malformed or not signed by its own key
   */
  signNode(csrPem: string, nodeId: string): Promise<string> {
    const commonName = nodeCommonName(nodeId);
    return this.#sign(csrPem, commonName, [new this.#x509.ExtendedKeyUsageExtension([CLIENT_AUTH], true)]);
  }

  /**
   * A server certificate whose only name is `serverName` (the sandbox id, as DNS SAN).
   * @throws Fault invalid_argument as signNode does
   */
  signGuest(csrPem: string, serverName: string): Promise<string> {
    return this.signServer(csrPem, [serverName]);
  }

  /**
   * A server certificate for DNS names and IP addresses.
   * @throws Fault invalid_argument as signNode does
   */
  signServer(csrPem: string, names: readonly string[]): Promise<string> {
    const alternatives = names.map((value) => ({
      type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const),
      value,
    }));
    return this.#sign(csrPem, names[0] ?? "", [
      new this.#x509.ExtendedKeyUsageExtension([SERVER_AUTH], true),
      new this.#x509.SubjectAlternativeNameExtension(alternatives),
    ]);
  }

  async #sign(csrPem: string, commonName: string, extensions: readonly X509.Extension[]): Promise<string> {
    const { X509CertificateGenerator, ...x509 } = this.#x509;
    const publicKey = await this.#verifiedKey(csrPem);
    const end = Math.min(this.#now().getTime() + LEAF_YEARS * YEAR_MS, this.#certificate.notAfter.getTime());
    const certificate = await X509CertificateGenerator.create({
      serialNumber: newSerial(),
      subject: [{ CN: [commonName] }],
      issuer: this.#certificate.subjectName,
      notBefore: new Date(this.#now().getTime() - HOUR_MS), // guests may be an hour behind
      notAfter: new Date(end),
      publicKey,
      signingKey: this.#key,
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate.publicKey),
        ...extensions,
      ],
    });
    return `${certificate.toString("pem")}\n`;
  }

  /** Only P-256: the one kind of key that our guests and nodes make. */
  async #verifiedKey(csrPem: string): Promise<X509.PublicKey> {
    let request: X509.Pkcs10CertificateRequest;
    let valid: boolean;
    try {
      request = new this.#x509.Pkcs10CertificateRequest(csrPem);
      const { name, namedCurve } = request.publicKey.algorithm as webcrypto.EcKeyAlgorithm;
      valid = name === P256.name && namedCurve === P256.namedCurve && (await request.verify());
    } catch (cause) {
      throw new Fault("invalid_argument", "the certificate request is not a PEM PKCS#10 request", {}, { cause });
    }
    if (!valid) throw new Fault("invalid_argument", "the certificate request is not signed by its own ECDSA P-256 key");
    return request.publicKey;
  }
}

async function selfSign(x509: typeof X509, key: webcrypto.CryptoKey, keyPem: string, now: Date): Promise<string> {
  const spki = createPublicKey(keyPem).export({ type: "spki", format: "der" });
  const publicKey = await crypto.subtle.importKey("spki", spki, P256, true, ["verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    // The key's hash makes the name unique: two CAs of one machine must not look alike to a TLS stack.
    name: [{ CN: [`kata-remote CA ${spkiFingerprint(keyPem).slice(0, 12)}`] }],
    notBefore: new Date(now.getTime() - HOUR_MS),
    notAfter: new Date(now.getTime() + CA_YEARS * YEAR_MS),
    keys: { privateKey: key, publicKey },
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

function importKey(keyPem: string): Promise<webcrypto.CryptoKey> {
  const pkcs8 = createPrivateKey(keyPem).export({ type: "pkcs8", format: "der" });
  return crypto.subtle.importKey("pkcs8", pkcs8, P256, false, ["sign"]);
}

/** Hex; the first bit is clear, so that it is positive and at most 16 bytes. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString("hex");
}

/** Loaded late: a guest imports this folder for its requests only and must not pay for the library. */
async function loadX509(): Promise<typeof X509> {
  await import("reflect-metadata");
  return import("@peculiar/x509");
}
