import { readFile } from "node:fs/promises";
import { getCiphers } from "node:tls";
import { Fault } from "../../base/fault.ts";
import type { StockConfig } from "./config.ts";

/** The operator's certificates for calling forwarders whose image has some of its own. */
export interface OperatorCertificates {
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface StockTls {
  /** As the forwarder is told it; absent: its own default. */
  readonly minVersionName?: string;
  /** IANA names. */
  readonly cipherSuites: readonly string[];
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
  /** OpenSSL's names. */
  readonly ciphers?: string;
  readonly operator?: OperatorCertificates;
}

/** Name in the certificate of an image that has its own. Source: wire contract §3.8. */
export const OPERATOR_SERVER_NAME = "podvm-server";

/** Reads and checks `[stock.tls]`. @throws Fault invalid_argument | not_found naming the key */
export async function readStockTls(tls: StockConfig["tls"]): Promise<StockTls> {
  const { caFile, certificateFile, keyFile, minVersion, cipherSuites } = tls;
  if (minVersion === "VersionTLS13" && cipherSuites.length > 0)
    throw invalid('cipherSuites needs minVersion "VersionTLS12": TLS 1.3 has its own');
  const given = [caFile, certificateFile, keyFile].filter((file) => file !== undefined).length;
  if (given !== 0 && given !== 3)
    throw invalid("caFile, certificateFile and keyFile belong together: give all or none");
  return {
    minVersion: minVersion === "VersionTLS13" ? "TLSv1.3" : "TLSv1.2",
    ...(minVersion === "VersionTLS13" ? { minVersionName: minVersion } : {}),
    cipherSuites,
    ...(cipherSuites.length === 0 ? {} : { ciphers: cipherSuites.map(opensslName).join(":") }),
    ...(given === 0
      ? {}
      : {
          operator: {
            caPem: await read("caFile", caFile),
            certificatePem: await read("certificateFile", certificateFile),
            keyPem: await read("keyFile", keyFile),
          },
        }),
  };
}

/** OpenSSL's name of an IANA cipher suite: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256`. */
export function opensslName(iana: string): string {
  const name = iana
    .replace(/^TLS_/, "")
    .replace(/^RSA_WITH_/, "")
    .replace("_WITH_", "_")
    .replace(/AES_(128|256)/, "AES$1")
    .replace(/_CBC_/, "_")
    .replace(/CHACHA20_POLY1305_SHA256/, "CHACHA20_POLY1305")
    .replaceAll("_", "-");
  if (!iana.startsWith("TLS_") || !getCiphers().includes(name.toLowerCase()))
    throw invalid(`cipherSuites has "${iana}", which this program's TLS library does not know by that IANA name`);
  return name;
}

async function read(key: string, path = ""): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new Fault(Fault.from(cause).code, `stock.tls.${key}: ${path} cannot be read`, { path }, { cause });
  }
}

function invalid(problem: string): Fault {
  return new Fault("invalid_argument", `stock.tls: ${problem}`);
}
