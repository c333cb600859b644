import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";

const DIAL_MS = 10_000;

/** Waits while the server's queue is full (EAGAIN). @throws Error when nobody listens */
export async function dialUnix(path: string): Promise<Socket> {
  for (const end = performance.now() + DIAL_MS; ; await delay(20)) {
    try {
      return await ready(connect(path), "connect");
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "EAGAIN" || performance.now() > end) throw e;
    }
  }
}

export function dialTcp(port: number): Promise<Socket> {
  return ready(connect(port, "127.0.0.1"), "connect");
}

export interface TlsPeer {
  readonly port: number;
  readonly caPem: string;
  readonly keyPem: string;
  readonly certPem: string;
}

/** As a node that does not look at the guest's name, over a TCP connection that may be given. */
export function dialTls(
  peer: TlsPeer,
  options: { readonly alpn?: string; readonly socket?: Socket } = {},
): Promise<TLSSocket> {
  const { alpn, socket } = options;
  const where = socket === undefined ? { port: peer.port, host: "127.0.0.1" } : { socket };
  const tls = connectTls({
    ...where,
    ca: peer.caPem,
    key: peer.keyPem,
    cert: peer.certPem,
    rejectUnauthorized: false,
    ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
  });
  return ready(tls, "secureConnect");
}

function ready<S extends Socket>(socket: S, event: string): Promise<S> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error("no connection within 10 s"));
    }, DIAL_MS);
    socket.once(event, () => {
      clearTimeout(timer);
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", (e) => {
      clearTimeout(timer);
      reject(e);
    });
  });
}
