import type { Socket } from "node:net";
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from "node:tls";
import type { GuestLog } from "../system/guest-log.ts";

/** How long a peer may take for the TLS handshake, ms. */
const HANDSHAKE_MS = 20_000;

export interface TlsListenerDeps {
  /** What is shown and trusted; `ca` decides who gets in. */
  readonly tls: SecureContextOptions;
  readonly alpn?: readonly string[];
  /** Gets every peer whose certificate the CA vouches for. */
  readonly accept: (socket: TLSSocket) => void;
  readonly log: GuestLog;
}

/** The TCP port of a guest, open to clients with a certificate of the given CA only. */
export class TlsListener implements AsyncDisposable {
  readonly #server: Server;
  /** Connections below, handshake done or not. */
  readonly #raw = new Set<Socket>();

  constructor(deps: TlsListenerDeps) {
    this.#server = createServer({
      ...deps.tls,
      requestCert: true,
      rejectUnauthorized: true,
      ...(deps.alpn === undefined ? {} : { ALPNProtocols: [...deps.alpn] }),
      handshakeTimeout: HANDSHAKE_MS,
      noDelay: true,
      keepAlive: true,
    });
    this.#server.on("connection", (raw: Socket) => {
      this.#raw.add(raw);
      raw.once("close", () => this.#raw.delete(raw));
    });
    this.#server.on("secureConnection", (socket) => {
      const from = socket.remoteAddress;
      socket.on("error", (error) => deps.log.info("connection broke", { from, err: error.message }));
      deps.accept(socket);
    });
    this.#server.on("tlsClientError", (error, socket) => {
      deps.log.warn("tls handshake failed", { from: socket.remoteAddress, err: error.message });
      socket.destroy();
    });
  }

  /** @returns the port */
  listen(port: number, host?: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ port, ...(host === undefined ? {} : { host }), backlog: 511 }, () => {
        this.#server.off("error", reject);
        const address = this.#server.address();
        resolve(typeof address === "object" && address !== null ? address.port : port);
      });
    });
  }

  /** For connections from now on. */
  setTls(tls: SecureContextOptions): void {
    this.#server.setSecureContext(tls);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#raw) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
