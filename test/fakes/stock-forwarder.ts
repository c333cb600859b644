import { once } from "node:events";
import { type AddressInfo, isIPv4 } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { HealthCheckResponse, HealthDefinition } from "../../src/gen/agent/health.ts";
import { type ServerCall, TtrpcServer } from "../../src/ttrpc/index.ts";
import { processUserData } from "../protocol/process-user-data.ts";

export interface ForwarderOptions {
  /** Baked into the image, when user-data has none. */
  readonly image?: { readonly certificatePem: string; readonly keyPem: string; readonly caPem: string };
  readonly port?: number;
  /** Newest TLS that it speaks. */
  readonly maxVersion?: "TLSv1.2";
}

interface ApfJson {
  readonly "pod-network"?: Readonly<Record<string, unknown>>;
  readonly "tls-server-key"?: string;
  readonly "tls-server-cert"?: string;
  readonly "tls-client-ca"?: string;
  readonly "tls-min-version"?: string;
  readonly "tls-cipher-suites"?: readonly string[];
}

const PROTOCOLS = ["static", "boot", "dhcp", "kernel"];
const SCOPES = ["site", "link", "host", "nowhere"];

/**
 * A VM with the stock image, from its user-data on: process-user-data, then the forwarder with an agent behind it that
 * keeps what it is asked. As strict as the wire contract says the real ones are (§3.5, §3.8, §3.10, §3.12).
 */
export class StockForwarder {
  readonly files: ReadonlyMap<string, string>;
  readonly apf: ApfJson;
  readonly initdataDigest: string;
  /** Every request in order. */
  readonly requests: { readonly method: string; readonly payload: Buffer; readonly call: ServerCall }[] = [];
  /** Answers by method; what is not here answers with nothing. */
  readonly answers = new Map<string, (payload: Buffer, call: ServerCall) => Promise<Uint8Array>>();
  readonly #server: Server;
  readonly #ttrpc = new TtrpcServer();
  readonly #sockets = new Set<TLSSocket>();

  private constructor(userData: string, options: ForwarderOptions) {
    const { files, initdataDigest } = processUserData(userData);
    this.files = files;
    this.initdataDigest = initdataDigest;
    this.apf = JSON.parse(files.get("/run/peerpod/apf.json") ?? "null") as ApfJson;
    checkPodNetwork(this.apf["pod-network"]);
    const { image } = options;
    const key = this.apf["tls-server-key"] ?? image?.keyPem;
    const cert = this.apf["tls-server-cert"] ?? image?.certificatePem;
    if (key === undefined || cert === undefined) throw new Error("no certificate: the listener cannot be made");
    const ca = this.apf["tls-client-ca"] ?? image?.caPem;
    this.#server = createServer({
      ...{ key, cert, minVersion: this.apf["tls-min-version"] === "VersionTLS13" ? "TLSv1.3" : "TLSv1.2" },
      ...(options.maxVersion === undefined ? {} : { maxVersion: options.maxVersion }),
      ...(ca === undefined ? {} : { ca, requestCert: true, rejectUnauthorized: true }),
    });
    for (const { name } of Object.values(AgentServiceDefinition.methods))
      this.#ttrpc.addHandler(AgentServiceDefinition.fullName, name, (payload, call) =>
        this.#answer(name, payload, call),
      );
    this.#ttrpc.addHandler(HealthDefinition.fullName, "Check", async () =>
      HealthCheckResponse.encode(HealthCheckResponse.fromPartial({ status: 1 })).finish(),
    );
    this.#ttrpc.addHandler(HealthDefinition.fullName, "Version", (p, call) => this.#answer("Version", p, call));
    this.#server.on("secureConnection", (socket) => {
      this.#sockets.add(socket);
      this.sessions.push(`${socket.getProtocol()} ${socket.getCipher().standardName}`);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined); // tests cut connections
      this.#ttrpc.accept(socket);
    });
    this.#server.on("tlsClientError", () => undefined); // whoever was refused is told by TLS
  }

  /** @throws Error where the real image would never come up */
  static async boot(userData: Uint8Array, options: ForwarderOptions = {}): Promise<StockForwarder> {
    const forwarder = new StockForwarder(Buffer.from(userData).toString("utf8"), options);
    forwarder.#server.listen(options.port ?? 0, "127.0.0.1");
    await once(forwarder.#server, "listening");
    return forwarder;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Protocol and cipher suite (IANA) of each connection, in their order. */
  readonly sessions: string[] = [];

  /** The newest request of a method. */
  last(method: string): Buffer | undefined {
    return this.requests.findLast((r) => r.method === method)?.payload;
  }

  /** Breaks every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(method: string, payload: Uint8Array, call: ServerCall): Promise<Uint8Array> {
    this.requests.push({ method, payload: Buffer.from(payload), call });
    return (await this.answers.get(method)?.(Buffer.from(payload), call)) ?? new Uint8Array();
  }
}

/** What the forwarder's first step would stumble over. Source: wire contract §3.5, §3.12. */
function checkPodNetwork(network: ApfJson["pod-network"]): void {
  if (network === undefined) throw new Error("pod-network is missing: the forwarder crashes");
  const prefix = (key: string, value: unknown): void => {
    const [address = "", length = ""] = String(value).split("/");
    if (!isIPv4(address) || !/^\d+$/.test(length) || Number(length) > 32) throw new Error(`${key}: ${value}`);
  };
  prefix("podip", network.podip);
  prefix("worker-node-ip", network["worker-node-ip"]);
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(String(network["pod-hw-addr"]))) throw new Error("pod-hw-addr");
  if (network["tunnel-type"] !== "vxlan") throw new Error(`tunnel-type: ${network["tunnel-type"]}`);
  const routes = (network.routes ?? []) as Record<string, string | undefined>[];
  for (const { dst, gw, protocol, scope } of routes) {
    prefix("dst", dst);
    if (gw === undefined || (gw !== "" && !isIPv4(gw))) throw new Error(`gw of ${dst}: ${gw}`);
    if (protocol !== undefined && !PROTOCOLS.includes(protocol)) throw new Error(`protocol of ${dst}: ${protocol}`);
    if (scope !== undefined && !SCOPES.includes(scope)) throw new Error(`scope of ${dst}: ${scope}`);
  }
  // The connected route is deleted and made again from the list: without it there the pod has no network of its own.
  const connected = routes.some((route) => route.gw === "" && route.dst !== "0.0.0.0/0");
  if (!String(network.podip).endsWith("/32") && !connected) throw new Error("the connected route is not in the list");
}
