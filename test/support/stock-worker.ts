import { createPrivateKey, randomBytes, type webcrypto } from "node:crypto";
import { connect, type TLSSocket } from "node:tls";
import { newKeyPair } from "../../src/identity/index.ts";

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const MINUTE_MS = 60_000;

export interface StockPeer {
  readonly keyPem: string;
  readonly certPem: string;
}

/** Certificates, user-data and connections of the stock adaptor on a worker, made from its contract and not by our code. */
export class StockWorker {
  readonly server: StockPeer;
  readonly client: StockPeer;
  readonly serverName: string;
  readonly #caPem: string;

  private constructor(parts: { server: StockPeer; client: StockPeer; serverName: string; caPem: string }) {
    this.server = parts.server;
    this.client = parts.client;
    this.serverName = parts.serverName;
    this.#caPem = parts.caPem;
  }

  /** A self-signed CA, a server certificate of it, and a self-signed client certificate that is no CA. */
  static async make(serverName = "podvm-web-1-abcdef01"): Promise<StockWorker> {
    await import("reflect-metadata");
    const x509 = await import("@peculiar/x509");
    const importKeys = async (keyPem: string): Promise<webcrypto.CryptoKeyPair> => {
      const jwk = createPrivateKey(keyPem).export({ format: "jwk" });
      const { d: _, ...publicJwk } = jwk;
      return {
        privateKey: await crypto.subtle.importKey("jwk", jwk, P256, true, ["sign"]),
        publicKey: await crypto.subtle.importKey("jwk", publicJwk, P256, true, ["verify"]),
      };
    };
    const { digitalSignature, keyCertSign } = x509.KeyUsageFlags;
    const notBefore = new Date(Date.now() - 5 * MINUTE_MS);
    const notAfter = new Date(Date.now() + 730 * 24 * 60 * MINUTE_MS);
    const common = { notBefore, notAfter, signingAlgorithm: P256 };
    const serialNumber = (): string => randomBytes(16).toString("hex");
    const caKeys = await importKeys(newKeyPair().keyPem);
    const ca = await x509.X509CertificateGenerator.createSelfSigned({
      ...common,
      serialNumber: serialNumber(),
      name: "O=agent-protocol-forwarder",
      keys: caKeys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(keyCertSign | digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([SERVER_AUTH]),
      ],
    });
    const serverKeyPem = newKeyPair().keyPem;
    const server = await x509.X509CertificateGenerator.create({
      ...common,
      serialNumber: serialNumber(),
      subject: `O=agent-protocol-forwarder, CN=${serverName}`,
      issuer: ca.subject,
      signingKey: caKeys.privateKey,
      publicKey: (await importKeys(serverKeyPem)).publicKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(keyCertSign | digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([SERVER_AUTH]),
        new x509.SubjectAlternativeNameExtension([{ type: "dns", value: serverName }]),
      ],
    });
    const clientKeyPem = newKeyPair().keyPem;
    const client = await x509.X509CertificateGenerator.createSelfSigned({
      ...common,
      serialNumber: serialNumber(),
      name: "O=cloud-api-adaptor",
      keys: await importKeys(clientKeyPem),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([CLIENT_AUTH]),
      ],
    });
    return new StockWorker({
      server: { keyPem: serverKeyPem, certPem: `${server.toString("pem")}\n` },
      client: { keyPem: clientKeyPem, certPem: `${client.toString("pem")}\n` },
      serverName,
      caPem: ca.toString("pem"),
    });
  }

  /** apf.json as the worker writes it; `over` changes or removes keys. */
  apf(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    return {
      "pod-network": stockPodNetwork(),
      "pod-namespace": "default",
      "pod-name": "web-1",
      "tls-server-key": this.server.keyPem,
      "tls-server-cert": this.server.certPem,
      "tls-client-ca": this.client.certPem,
      ...over,
    };
  }

  /** The document, with apf.json indented as the worker indents it. */
  userData(apf: object = this.apf(), files: Readonly<Record<string, string>> = {}): string {
    return stockUserData({ "/run/peerpod/apf.json": JSON.stringify(apf, undefined, 4), ...files });
  }

  /** Dials as the worker's proxy does: no ALPN, the server's name checked. */
  dial(
    port: number,
    as: Partial<StockPeer> = this.client,
    versions: { maxVersion?: "TLSv1.2" } = {},
  ): Promise<TLSSocket> {
    const { serverName: servername } = this;
    return new Promise((resolve, reject) => {
      const socket = connect({
        port,
        host: "127.0.0.1",
        ca: this.#caPem,
        servername,
        ...(as.keyPem === undefined ? {} : { key: as.keyPem }),
        ...(as.certPem === undefined ? {} : { cert: as.certPem }),
        ...versions,
      });
      socket.once("secureConnect", () => resolve(socket));
      socket.once("error", reject);
    });
  }
}

/** pod-network of a pod on a bridge, as read from a worker's namespace. */
export function stockPodNetwork(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    podip: "10.9.0.7/24",
    "pod-hw-addr": "02:00:00:00:00:07",
    interface: "eth0",
    "worker-node-ip": "192.0.2.10/24",
    "tunnel-type": "vxlan",
    routes: [
      { dst: "::ffff:0.0.0.0/0", gw: "10.9.0.1", dev: "eth0", protocol: "boot" },
      { dst: "10.9.0.0/24", gw: "", dev: "eth0", protocol: "kernel", scope: "link" },
    ],
    neighbors: [{ ip: "10.9.0.1", "hw-addr": "02:00:00:00:00:01", dev: "eth0", state: "permanent" }],
    mtu: 1500,
    index: 0,
    "vxlan-port": 4789,
    "vxlan-id": 555000,
    dedicated: false,
    "external-net-via-pod-vm": false,
    ...over,
  };
}

/** The cloud-config document, byte for byte: no quotes, content indented by six, an empty file without content. */
export function stockUserData(files: Readonly<Record<string, string>>): string {
  const entries = Object.entries(files).map(([path, content]) =>
    content === ""
      ? `  - path: ${path}\n`
      : `  - path: ${path}\n    content: |\n${content.replace(/\n$/, "").replaceAll(/^/gm, "      ")}\n`,
  );
  return `#cloud-config\n\nwrite_files:\n${entries.join("")}`;
}
