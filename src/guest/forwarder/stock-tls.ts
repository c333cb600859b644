import { createPrivateKey, X509Certificate } from "node:crypto";
import { getCiphers, type SecureContextOptions } from "node:tls";
import { Fault } from "../../base/fault.ts";

/** TLS as the stock adaptor's apf.json gives it; all PEM. */
export interface StockTls {
  readonly key: string;
  readonly cert: string;
  /** A CA, or the one client certificate itself. */
  readonly clientCa: string;
  /** As Go names it; VersionTLS12 when empty or left out. */
  readonly minVersion?: string | undefined;
  /** IANA names. They say nothing about TLS 1.3, whose suites are always there. */
  readonly cipherSuites?: readonly string[] | undefined;
}

const VERSIONS: ReadonlyMap<string, "TLSv1.2" | "TLSv1.3"> = new Map([
  ["", "TLSv1.2"],
  ["VersionTLS12", "TLSv1.2"],
  ["VersionTLS13", "TLSv1.3"],
]);
const TLS13_SUITES = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"];

/**
 * Options of the listener. Unlike the stock forwarder it lets nobody in when the document names no client CA, where that
 * one lets everybody in.
 * @throws Fault invalid_argument naming the key of apf.json
 */
export function stockTls(tls: StockTls): SecureContextOptions {
  const minVersion = VERSIONS.get(tls.minVersion ?? "");
  if (minVersion === undefined)
    throw invalid("tls-min-version", `"${tls.minVersion}" is not known: VersionTLS12 and VersionTLS13 are`);
  if (tls.clientCa.trim() === "")
    throw invalid("tls-client-ca", "is empty: everybody could command this pod; give the adaptor a CA file as well");
  certificate("tls-client-ca", tls.clientCa);
  const leaf = certificate("tls-server-cert", tls.cert);
  checkKey(tls.key, leaf);
  const suites = (tls.cipherSuites ?? []).map(opensslName);
  return {
    key: tls.key,
    cert: tls.cert,
    ca: tls.clientCa,
    minVersion,
    ...(suites.length === 0 ? {} : { ciphers: [...TLS13_SUITES, ...suites].join(":") }),
  };
}

function certificate(key: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw invalid(key, "is not a PEM certificate", cause);
  }
}

function checkKey(pem: string, leaf: X509Certificate): void {
  let matches: boolean;
  try {
    matches = leaf.checkPrivateKey(createPrivateKey(pem));
  } catch (cause) {
    throw invalid("tls-server-key", "is not a PEM private key", cause);
  }
  if (!matches) throw invalid("tls-server-key", "is not the key of tls-server-cert");
}

/**
 * OpenSSL's name of a suite of TLS 1.2: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 is ECDHE-ECDSA-AES128-GCM-SHA256 there.
 * @throws Fault invalid_argument for one that OpenSSL does not have
 */
export function opensslName(iana: string): string {
  const [, exchange = "", cipher = ""] = /^TLS_(.+)_WITH_(.+)$/.exec(iana) ?? [];
  const short = cipher
    .replace(/^AES_(\d+)_CBC_/, "AES$1-")
    .replace(/^AES_(\d+)_GCM_/, "AES$1-GCM-")
    .replace(/^CHACHA20_POLY1305(_SHA256)?$/, "CHACHA20-POLY1305");
  const name = exchange === "RSA" ? short : `${exchange.replaceAll("_", "-")}-${short}`;
  if (!getCiphers().includes(name.toLowerCase()))
    throw invalid("tls-cipher-suites", `"${iana}" is not known here: name suites of TLS 1.2 with ECDHE`);
  return name;
}

function invalid(key: string, problem: string, cause?: unknown): Fault {
  return new Fault("invalid_argument", `${key} in apf.json ${problem}`, {}, { cause });
}
