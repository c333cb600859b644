import { Fault } from "../base/fault.ts";

/** What a VM with the stock image is told at boot. */
export interface StockUserData {
  /** `pod-network` of apf.json, a JSON object. */
  readonly podNetwork: object;
  readonly pod: { readonly namespace: string; readonly name: string };
  /** Absent when the image has certificates of its own. */
  readonly tls?: { readonly certificatePem: string; readonly keyPem: string; readonly clientCaPem: string };
  /** "VersionTLS12" or "VersionTLS13". */
  readonly tlsMinVersion?: string;
  /** IANA names. */
  readonly tlsCipherSuites?: readonly string[];
  readonly authJson?: string;
  /** As encodeInitdata gives it. */
  readonly initdata?: string;
  readonly scratchSpace: boolean;
}

/** The only files that the stock image takes; it parses so strictly that nothing else may be in the document. */
const DIR = "/run/peerpod";
const HEADER = "#cloud-config";

/**
 * Most that clouds take, bytes: of the document itself, or of its base64.
 * Sources: EC2 "user data is limited to 16 KB, in raw form"; Azure 64 KiB of base64 (wire contract §3.5); GCE 256 KB per
 * metadata value; Alibaba Cloud 32 KB before encoding; IBM VPC 64 KB.
 */
const LIMITS: Readonly<Record<string, { readonly bytes: number; readonly of: "document" | "base64" }>> = {
  aws: { bytes: 16_384, of: "document" },
  azure: { bytes: 65_536, of: "base64" },
  gcp: { bytes: 262_144, of: "base64" },
  alibabacloud: { bytes: 32_768, of: "document" },
  ibmcloud: { bytes: 65_536, of: "document" },
};
const OTHERS = { bytes: 262_144, of: "document" } as const;

/** The forwarder's configuration. Keys and their order: wire contract §3.5; its reader ignores keys that it does not know. */
export function renderApfJson(data: Omit<StockUserData, "authJson" | "initdata" | "scratchSpace">): string {
  const document = {
    "pod-network": data.podNetwork,
    "pod-namespace": data.pod.namespace,
    "pod-name": data.pod.name,
    ...(data.tls === undefined
      ? {}
      : {
          "tls-server-key": data.tls.keyPem,
          "tls-server-cert": data.tls.certificatePem,
          "tls-client-ca": data.tls.clientCaPem,
        }),
    ...(data.tlsMinVersion === undefined ? {} : { "tls-min-version": data.tlsMinVersion }),
    ...((data.tlsCipherSuites ?? []).length === 0 ? {} : { "tls-cipher-suites": data.tlsCipherSuites }),
  };
  return JSON.stringify(document, undefined, 4);
}

/**
 * The cloud-config document as strictly as the stock image wants it: write_files with path and content, nothing else,
 * nothing quoted.
 * @param provider Whose limit it must keep
 * @throws Fault resource_exhausted naming the sizes of its parts
 * Source: wire contract §3.5
 */
export function renderStockUserData(data: StockUserData, provider: string): Uint8Array {
  const files = [
    { path: `${DIR}/apf.json`, content: renderApfJson(data) },
    ...(data.authJson === undefined ? [] : [{ path: `${DIR}/auth.json`, content: data.authJson }]),
    ...(data.initdata === undefined ? [] : [{ path: `${DIR}/initdata`, content: data.initdata }]),
    ...(data.scratchSpace ? [{ path: `${DIR}/scratch-space.marker`, content: "" }] : []),
  ];
  const lines = files.flatMap(({ path, content }) => [
    `  - path: ${path}`,
    ...(content === "" ? [] : ["    content: |", ...content.split("\n").map((line) => `      ${line}`)]),
  ]);
  const document = Buffer.from(`${[HEADER, "", "write_files:", ...lines].join("\n")}\n`, "utf8");
  const limit = LIMITS[provider] ?? OTHERS;
  const bytes = limit.of === "base64" ? Math.ceil(document.length / 3) * 4 : document.length;
  if (bytes <= limit.bytes) return document;
  const parts = files.map(({ path, content }) => `${path} ${Buffer.byteLength(content)}`).join(", ");
  throw new Fault(
    "resource_exhausted",
    `user-data of ${bytes} bytes (${limit.of}) is more than the ${limit.bytes} that provider ${provider} takes (${parts}): shorten the initdata, or give the pod fewer pull secrets`,
  );
}
