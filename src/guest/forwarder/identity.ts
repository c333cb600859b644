import { createPrivateKey, X509Certificate } from "node:crypto";
import { Fault } from "../../base/fault.ts";
import { makeCsr, makeSelfSigned, newKeyPair, spkiFingerprint } from "../../identity/index.ts";

/** What the TLS listener shows and trusts. */
export interface TlsMaterial {
  readonly key: string;
  readonly cert: string;
  readonly ca: string;
}

/** The guest's own key. It is made at boot and never leaves the guest. */
export class GuestIdentity {
  /** Lower-case hex SHA-256 of the public key. */
  readonly fingerprint: string;
  readonly csrPem: string;
  readonly #keyPem: string;
  readonly #ca: X509Certificate;
  readonly #caPem: string;
  #certificatePem: string;

  /** @throws Fault invalid_argument when the CA is not a certificate */
  constructor(caPem: string) {
    this.#caPem = caPem;
    try {
      this.#ca = new X509Certificate(caPem);
    } catch (cause) {
      throw new Fault("invalid_argument", "the cluster CA in user-data is not a certificate", {}, { cause });
    }
    this.#keyPem = newKeyPair().keyPem;
    this.fingerprint = spkiFingerprint(this.#keyPem);
    this.csrPem = makeCsr(this.#keyPem, "kata-remote guest");
    this.#certificatePem = makeSelfSigned(this.#keyPem, "kata-remote guest");
  }

  get tls(): TlsMaterial {
    return { key: this.#keyPem, cert: this.#certificatePem, ca: this.#caPem };
  }

  /**
   * Takes the signed certificate.
   * @throws Fault invalid_argument when it is not for this key or the cluster CA did not sign it
   */
  install(certificatePem: string): void {
    let leaf: X509Certificate;
    try {
      leaf = new X509Certificate(certificatePem);
    } catch (cause) {
      throw new Fault("invalid_argument", "certificate_pem is not a certificate", {}, { cause });
    }
    if (!leaf.checkPrivateKey(createPrivateKey(this.#keyPem))) {
      throw new Fault("invalid_argument", "certificate_pem is for another key than this guest's");
    }
    if (!leaf.checkIssued(this.#ca) || !leaf.verify(this.#ca.publicKey)) {
      throw new Fault("invalid_argument", "certificate_pem is not signed by the cluster CA that user-data names");
    }
    this.#certificatePem = certificatePem;
  }
}
