import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import type { Call } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import { ended, race } from "../base/retry.ts";
import { fingerprintOfKey } from "./csr.ts";
import type { GuestSpec } from "./relay.ts";

export interface DialTarget {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly identity: GuestSpec["identity"];
  /** Name in the certificate that our CA gives this peer. */
  readonly serverName: string;
  readonly alpn?: string;
  /** Default: TLS 1.3 only. */
  readonly profile?: { readonly minVersion: "TLSv1.2" | "TLSv1.3"; readonly ciphers?: string | undefined };
  /** Ticket of an earlier connection to a peer that was verified. */
  readonly session?: Buffer | undefined;
}

/** A peer after the TLS handshake. Nothing is decided yet: the caller compares `key`, `signed` and `resumed`. */
export interface DialedPeer {
  readonly socket: TLSSocket;
  /** Bytes that came over the wire on this connection, the handshake's included. */
  readonly bytesRead: () => number;
  readonly address: string;
  /** Fingerprint of the key that the peer proved to hold; "" on a resumed session. */
  readonly key: string;
  /** Its certificate leads to our CA and carries its name. */
  readonly signed: boolean;
  /** It took the ticket: it is the peer that issued it. */
  readonly resumed: boolean;
}

/** How long one attempt may take, ms, while nothing was heard, and once the peer began to answer; at least. */
const SILENT_MS = 2000;
const HANDSHAKE_MS = 5000;
/** Time from the start of one attempt to the next, ms: grows to the maximum while the guest boots. */
const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 300;
/**
 * Attempts become rarer and more patient with the time that was dialled in vain, in these shares of it. A guest on a busy
 * host may take longer for a handshake than a fixed patience, and then works for ever on connections that were given up.
 * Seen 77 s after a VM's start: it answered ARP, and logged one handshake after the other that had been hung up on.
 */
const PATIENCE_SHARE = 1 / 4;
const PAUSE_SHARE = 1 / 20;
/** The same while the guest's kernel refuses: it has booted, its listener is about to come. Refusing costs it little. */
const REFUSED_PAUSE_MS = 50;

/** TLS client to guests. One OpenSSL context per identity, shared by every connection: contexts are what costs memory. */
export class Dialer {
  readonly #contexts = new Map<string, SecureContext>();

  /**
   * Attempts overlap: a SYN that a guest (or QEMU's user network, which answers before the guest does) lost costs a
   * pause, not a timeout. As soon as one attempt hears its peer no further is started.
   * @throws Fault unavailable with the last error when the call's deadline passes; cancelled
   */
  async dial(target: DialTarget, call: Call): Promise<DialedPeer> {
    const winner = deferred<DialedPeer>();
    const attempts = new Set<Attempt>();
    let last: Error | undefined;
    let refused = false;
    const begun = performance.now();
    try {
      for (let n = 0; ; n++) {
        const address = target.addresses[n % target.addresses.length];
        if (address === undefined) throw new Fault("invalid_argument", "the pod VM has no address to dial");
        const vain = performance.now() - begun;
        const attempt = new Attempt(target, address, () => this.#context(target), vain * PATIENCE_SHARE);
        attempts.add(attempt);
        attempt.done.then(winner.resolve, (e: Error) => {
          last = e;
          refused = (e as NodeJS.ErrnoException).code === "ECONNREFUSED";
          attempts.delete(attempt);
        });
        const most = refused ? REFUSED_PAUSE_MS : Math.max(MAX_PAUSE_MS, vain * PAUSE_SHARE);
        await pause(winner.promise, Math.min(most, FIRST_PAUSE_MS + 5 * n + vain * PAUSE_SHARE), call);
        for (let heard = first(attempts); heard !== undefined && !winner.settled; heard = first(attempts)) {
          await race(
            heard.done.catch(() => undefined),
            call,
          );
        }
        if (winner.settled) return await winner.promise;
      }
    } catch (e) {
      const fault = Fault.from(e);
      if (fault.code !== "deadline_exceeded") throw fault;
      const where = `${target.addresses.join(", ")} port ${target.port}`;
      throw new Fault("unavailable", `no TLS connection to the pod VM at ${where} in time`, {}, { cause: last ?? e });
    } finally {
      const peer = winner.settled ? await winner.promise : undefined;
      for (const attempt of attempts) if (attempt.socket !== peer?.socket) attempt.socket.destroy();
    }
  }

  #context({ identity, profile }: DialTarget): SecureContext {
    const { minVersion = "TLSv1.3", ciphers } = profile ?? {};
    const name = `${identity.certificatePem}\n${identity.caPem}\n${minVersion} ${ciphers}`;
    let context = this.#contexts.get(name);
    if (context === undefined) {
      const { caPem: ca, certificatePem: cert, keyPem: key } = identity;
      context = createSecureContext({ ca, cert, key, minVersion, ...(ciphers === undefined ? {} : { ciphers }) });
      this.#contexts.set(name, context);
      // Identities change when they are renewed; two at a time are in use at most.
      for (const old of this.#contexts.keys()) if (this.#contexts.size > 8) this.#contexts.delete(old);
    }
    return context;
  }
}

class Attempt {
  readonly socket: TLSSocket;
  readonly done: Promise<DialedPeer>;
  readonly #raw: Socket;

  constructor(target: DialTarget, address: string, context: () => SecureContext, patienceMs: number) {
    const silentMs = Math.max(SILENT_MS, patienceMs);
    const handshakeMs = Math.max(HANDSHAKE_MS, 2 * patienceMs);
    const raw = connectTcp({ host: address, port: target.port, noDelay: true });
    const socket = connectTls({
      socket: raw,
      secureContext: context(), // while the packets of the line before are on their way
      servername: target.serverName,
      // The caller judges: before enrolment no CA can vouch, after it the pinned key must match as well.
      rejectUnauthorized: false,
      ...(target.alpn === undefined ? {} : { ALPNProtocols: [target.alpn] }),
      ...(target.session === undefined ? {} : { session: target.session }),
    });
    this.#raw = raw;
    this.socket = socket;
    this.done = new Promise((resolve, reject) => {
      const fail = (e: Error): void => {
        socket.destroy();
        raw.destroy();
        reject(e);
      };
      const late = (): void =>
        fail(new Error(`${address}: no TLS handshake in ${Math.round(this.heard ? handshakeMs : silentMs)} ms`));
      let timer = setTimeout(() => {
        if (!this.heard) return late();
        timer = setTimeout(late, handshakeMs - silentMs);
      }, silentMs);
      raw.on("error", fail);
      socket.on("error", fail);
      const closed = (): void =>
        fail(raw.errored ?? new Error(`${address} closed the connection during the TLS handshake`));
      socket.once("close", closed);
      socket.once("secureConnect", () => {
        clearTimeout(timer);
        socket.off("close", closed);
        const key = socket.getPeerX509Certificate()?.publicKey;
        resolve({
          socket,
          bytesRead: () => raw.bytesRead,
          address,
          key: key === undefined ? "" : fingerprintOfKey(key),
          signed: socket.authorized,
          resumed: socket.isSessionReused(),
        });
      });
      socket.once("close", () => clearTimeout(timer));
    });
  }

  get heard(): boolean {
    return this.#raw.bytesRead > 0;
  }
}

function first(attempts: ReadonlySet<Attempt>): Attempt | undefined {
  for (const attempt of attempts) if (attempt.heard) return attempt;
  return undefined;
}

/** Waits for `work`, at most `ms`. @throws Fault when the call ends */
async function pause(work: Promise<unknown>, ms: number, call: Call): Promise<void> {
  if (call.signal.aborted) throw ended(call);
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await race(Promise.race([work, timeout]), call);
  } finally {
    clearTimeout(timer);
  }
}
