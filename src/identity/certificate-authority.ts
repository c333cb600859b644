import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { join } from "node:path";
import { addressBytes } from "../base/address.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../base/files.ts";
import {
  authorityExtensions,
  CLIENT_AUTH,
  type Issuer,
  issue,
  issuerOf,
  keyIdOf,
  leafExtensions,
  nameOf,
  SERVER_AUTH,
  verifiedKey,
} from "./issue.ts";
import { newKeyPair, spkiFingerprint } from "./keys.ts";
import { nodeCommonName } from "./names.ts";

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
const CA_YEARS = 20;
/** Long, because a pod's certificate cannot be renewed while the pod runs. */
const LEAF_YEARS = 10;

/**
 * Signs the certificates of one cluster: nodes are TLS clients, guests are TLS servers.
 * Its key lives in `ca.key` (0600) in the directory it was opened with; whoever has that file can be any node.
 */
export class CertificateAuthority {
  readonly caPem: string;
  readonly #issuer: Issuer;
  /** ms since 1970. */
  readonly #notAfter: number;
  readonly #now: () => Date;

  private constructor(parts: {
    readonly caPem: string;
    readonly issuer: Issuer;
    readonly notAfter: number;
    readonly now: () => Date;
  }) {
    this.caPem = parts.caPem;
    this.#issuer = parts.issuer;
    this.#notAfter = parts.notAfter;
    this.#now = parts.now;
  }

  /**
   * Opens the authority in `dir`, or makes it. The key is written before the certificate: a crash in between is
   * repaired by the next open, and no certificate ever loses its key.
   * @throws Fault failed_precondition when key and certificate there do not belong together, or the certificate has ended
   */
  static async open(dir: string, options: { readonly now?: () => Date } = {}): Promise<CertificateAuthority> {
    const now = options.now ?? (() => new Date());
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
    const key = createPrivateKey(keyPem);
    if (pem === undefined) {
      pem = selfSign(keyPem, now());
      await writeFileAtomic(certificatePath, pem);
    }
    if (spkiFingerprint(pem) !== spkiFingerprint(keyPem)) {
      throw new Fault("failed_precondition", `${certificatePath} was not made for ca.key beside it: restore the pair`);
    }
    const notAfter = new Date(new X509Certificate(pem).validTo);
    if (notAfter <= now()) {
      const ended = notAfter.toISOString();
      throw new Fault(
        "failed_precondition",
        `${certificatePath} ended on ${ended}: remove ca.key and ca.crt, then restart all nodes and pods`,
      );
    }
    const issuer = issuerOf(pem, key);
    return new CertificateAuthority({ caPem: `${pem.trimEnd()}\n`, issuer, notAfter: notAfter.getTime(), now });
  }

  /**
   * A client certificate, CN `node:<id>`, for the gRPC connection to the adaptor and for agent tunnels.
   * @throws Fault invalid_argument when the request is malformed or not signed by its own key
   */
  async signNode(csrPem: string, nodeId: string): Promise<string> {
    return this.#sign(csrPem, nodeCommonName(nodeId), leafExtensions(CLIENT_AUTH, { critical: true }));
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
  async signServer(csrPem: string, names: readonly string[]): Promise<string> {
    const general = names.map((name) => (isIP(name) === 0 ? name : addressBytes(name)));
    return this.#sign(csrPem, names[0] ?? "", leafExtensions(SERVER_AUTH, { critical: true, names: general }));
  }

  #sign(csrPem: string, commonName: string, extensions: readonly Buffer[]): string {
    const spki = verifiedKey(csrPem);
    const now = this.#now().getTime();
    const notAfter = Math.min(now + LEAF_YEARS * YEAR_MS, this.#notAfter);
    const notBefore = now - HOUR_MS; // guests may be an hour behind
    return issue(this.#issuer, { name: nameOf({ commonName }), spki, notBefore, notAfter }, extensions);
  }
}

function selfSign(keyPem: string, now: Date): string {
  const key = createPrivateKey(keyPem);
  const spki = createPublicKey(keyPem).export({ type: "spki", format: "der" });
  const keyId = keyIdOf(spki);
  // The key's hash makes the name unique: two CAs of one machine must not look alike to a TLS stack.
  const name = nameOf({ commonName: `kata-remote CA ${spkiFingerprint(keyPem).slice(0, 12)}` });
  const notBefore = now.getTime() - HOUR_MS;
  const notAfter = now.getTime() + CA_YEARS * YEAR_MS;
  return issue({ name, key, keyId }, { name, spki, notBefore, notAfter }, authorityExtensions(keyId, "certAndCrlSign"));
}
