import { randomUUID } from "node:crypto";
import { type Call, withDeadline } from "../base/call.ts";
import { type Deferred, deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { race, sleep } from "../base/retry.ts";
import { type CallOptions, Code, type Metadata, StatusError, TtrpcClient, type UnaryCaller } from "../ttrpc/index.ts";
import { agentServes, checkHealth, GuestSession } from "./guest-session.ts";
import { type GuestFacts, type GuestSpec, KEEP_KEY, REQUEST_KEY } from "./relay.ts";
import { mayRepeat, StockSession } from "./stock-session.ts";
import type { DialedPeer, Dialer, DialTarget } from "./tls-dial.ts";

/** How often a peer may hang up right after the TLS handshake before that is taken for a refusal. */
const REFUSALS = 5;
/** Pause between a failed handshake and the next dial, ms. */
const PAUSE_MS = 100;

interface Connection {
  readonly peer: DialedPeer;
  readonly client: TtrpcClient;
  seen: number;
  checking: boolean;
}

/** The one connection to a guest, made again whenever it breaks, and the calls that go over it. */
export class GuestLink implements UnaryCaller {
  readonly #spec: GuestSpec;
  readonly #dialer: Dialer;
  readonly #log: Logger;
  readonly #session: GuestSession | StockSession;
  readonly #target: DialTarget;
  readonly #over = new AbortController();
  readonly #lost: Deferred<{ readonly reason: string }> = deferred();
  #next: Deferred<Connection> = deferred();
  #current: Connection | undefined;
  #ticket: Buffer | undefined;
  /** Keys of calls: nobody else, and no relay after this one, gives the guest the same. */
  readonly #keyPrefix = `${randomUUID()}-`;
  #keys = 0;

  constructor(spec: GuestSpec, deps: { readonly dialer: Dialer; readonly log: Logger }) {
    this.#spec = spec;
    this.#dialer = deps.dialer;
    this.#log = deps.log.child({ sandbox: spec.sandboxId });
    const { addresses, port, identity, sandboxId, stock } = spec;
    this.#session = stock === undefined ? new GuestSession(spec) : new StockSession(spec, stock);
    const common = { addresses, port, identity };
    this.#target =
      stock === undefined
        ? { ...common, serverName: sandboxId }
        : {
            ...common,
            serverName: stock.serverName,
            profile: { minVersion: stock.minVersion ?? "TLSv1.2", ciphers: stock.ciphers },
          };
  }

  /** Aborted, with the reason, when the guest is lost or was disconnected. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  get lost(): Promise<{ readonly reason: string }> {
    return this.#lost.promise;
  }

  /**
   * Dials until the agent answers or the call ends.
   * @throws Fault unavailable (never came up), permission_denied | already_exists (not our guest), or what `sign` threw
   */
  async open(call: Call): Promise<GuestFacts> {
    const scope = { ...call, signal: AbortSignal.any([call.signal, this.#over.signal]) };
    const { connection, facts } = await this.#establish(scope);
    this.#publish(connection);
    void this.#keepConnected(connection);
    return facts;
  }

  async call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    const stock = this.#spec.stock !== undefined;
    const metadata = this.#metadata(options.metadata ?? [], stock);
    // A call that a relay passes on has its signal in its prototype: it is not watched, which costs more than the call.
    const signal = Object.hasOwn(options, "signal") ? options.signal : undefined;
    const end = options.timeoutMs === undefined ? undefined : performance.now() + options.timeoutMs;
    for (;;) {
      const connection = this.#current ?? (await this.#connected(options.signal, end));
      const timeoutMs = end === undefined ? undefined : timeLeft(end, method);
      try {
        return await connection.client.call(service, method, payload, { signal, timeoutMs, metadata });
      } catch (e) {
        if (!isBroken(e) || options.signal?.aborted === true) throw e;
        // The same request goes out again under the same key on the next connection.
        connection.client.close();
        this.#drop(connection);
        if (stock && wasSent(e) && !mayRepeat(method)) throw unanswered(method, e);
      }
    }
  }

  /** A connection of its own to the same guest. @throws Fault when no guest that we know answers in time */
  async dialBeside(alpn: string, call: Call): Promise<DialedPeer> {
    const scope = { ...call, signal: AbortSignal.any([call.signal, this.#over.signal]) };
    const peer = await this.#dialer.dial({ ...this.#target, alpn }, scope);
    try {
      this.#session.verify(peer);
      if (peer.socket.alpnProtocol === alpn) return peer;
      throw new Fault(
        "unimplemented",
        `the pod VM does not take ${alpn} connections: its image is older than this node`,
      );
    } catch (e) {
      peer.socket.destroy();
      throw e;
    }
  }

  /** Ends the link for good: pending and later calls fail with the reason. */
  declareLost(reason: string): void {
    if (this.#lost.settled) return;
    this.#lost.resolve({ reason });
    const fault = gone(reason);
    this.#over.abort(fault);
    this.#next.reject(fault);
    this.#current?.client.close();
    this.#current = undefined;
  }

  /**
   * Called every few seconds for all links: a connection on which nothing came since the last time has to answer
   * Health.Check, else it is given up (a path that dies silently breaks no TCP connection for minutes).
   */
  async keepAlive(deadlineMs: number): Promise<void> {
    const connection = this.#current;
    if (connection === undefined || connection.checking) return;
    const before = connection.peer.bytesRead();
    if (before !== connection.seen) {
      connection.seen = before;
      return;
    }
    connection.checking = true;
    try {
      await checkHealth(connection.client, deadlineMs, { signal: this.#over.signal });
    } catch (e) {
      if (connection.peer.bytesRead() === before && this.#current === connection) {
        this.#log.warn({ err: e, address: connection.peer.address }, "guest is silent, dialling again");
        connection.client.close();
      }
    } finally {
      connection.seen = connection.peer.bytesRead();
      connection.checking = false;
    }
  }

  async #establish(call: Call): Promise<{ readonly connection: Connection; readonly facts: GuestFacts }> {
    for (let refusals = 0; ; ) {
      const connection = await this.#dial(call);
      this.#spec.onStage?.("connected");
      try {
        const facts = await this.#session.establish(connection.peer, connection.client, call);
        this.#spec.onStage?.("agent");
        return { connection, facts };
      } catch (e) {
        connection.client.close();
        if (call.signal.aborted || isFinal(e)) throw e;
        refusals = this.#session.established || !isBroken(e) ? 0 : refusals + 1;
        if (refusals >= REFUSALS) throw this.#refused(connection, e);
        this.#log.debug({ err: e }, "guest hung up, dialling again");
        await sleep(PAUSE_MS, call);
      }
    }
  }

  async #keepConnected(first: Connection): Promise<void> {
    for (let connection = first; ; ) {
      await connection.client.closed;
      this.#drop(connection);
      if (this.#over.signal.aborted) return;
      const since = performance.now();
      try {
        connection = await this.#reconnect(withDeadline(this.#spec.lostAfterMs, { signal: this.#over.signal }));
      } catch (e) {
        if (this.#over.signal.aborted) return;
        const seconds = Math.round(this.#spec.lostAfterMs / 1000);
        this.declareLost(`no connection to the pod VM for ${seconds} s: ${Fault.from(e).fullMessage}`);
        return;
      }
      this.#log.info({ durationMs: Math.round(performance.now() - since) }, "guest reconnected");
      this.#publish(connection);
    }
  }

  async #reconnect(call: Call): Promise<Connection> {
    let last: unknown;
    for (;;) {
      let connection: Connection | undefined;
      try {
        connection = await this.#dial(call);
        await agentServes(connection.client, call);
        return connection;
      } catch (e) {
        connection?.client.close();
        this.#ticket = undefined; // whatever was wrong, the next try shall not depend on it
        if (call.signal.aborted) throw last ?? e;
        last = e;
        await sleep(PAUSE_MS, call).catch(() => undefined); // the next turn sees that the call ended
      }
    }
  }

  async #dial(call: Call): Promise<Connection> {
    const peer = await this.#dialer.dial({ ...this.#target, session: this.#ticket }, call);
    try {
      this.#session.verify(peer);
    } catch (e) {
      this.#log.warn({ err: e, address: peer.address }, "refused a peer at the guest's address");
      this.#ticket = undefined;
      peer.socket.destroy();
      throw e;
    }
    if (this.#session.established) peer.socket.on("session", (ticket) => (this.#ticket = ticket));
    return { peer, client: new TtrpcClient(peer.socket), seen: peer.bytesRead(), checking: false };
  }

  #publish(connection: Connection): void {
    this.#current = connection;
    this.#next.resolve(connection);
  }

  #drop(connection: Connection): void {
    if (this.#current !== connection) return;
    this.#current = undefined;
    this.#next = deferred();
  }

  /** What goes to the guest: all but what is for the relay, and for our guest the call's key. */
  #metadata(given: Metadata, stock: boolean): Metadata {
    const passed = given.length === 0 ? given : given.filter(([name]) => name !== KEEP_KEY);
    return stock ? passed : [...passed, [REQUEST_KEY, `${this.#keyPrefix}${++this.#keys}`] as const];
  }

  async #connected(signal: AbortSignal | undefined, end: number | undefined): Promise<Connection> {
    if (this.#lost.settled) throw gone((await this.#lost.promise).reason);
    const signals = signal === undefined ? [] : [signal];
    if (end !== undefined) signals.push(AbortSignal.timeout(Math.max(0, Math.ceil(end - performance.now()))));
    if (signals.length === 0) return this.#next.promise;
    return race(this.#next.promise, { signal: AbortSignal.any(signals) });
  }

  #refused(connection: Connection, cause: unknown): Fault {
    const { address } = connection.peer;
    return new Fault(
      "permission_denied",
      `the pod VM at ${address} hung up ${REFUSALS} times right after the TLS handshake: it trusts another CA than the one that signed this node, or its clock is far off (see its console)`,
      { sandboxId: this.#spec.sandboxId },
      { cause },
    );
  }
}

function gone(reason: string): Fault {
  return new Fault("unavailable", `the pod VM is gone: ${reason}`, {}, { retryable: false });
}

/** Whether dialling again cannot help: somebody said no. A broken connection or a late answer is no answer. */
function isFinal(e: unknown): boolean {
  if (e instanceof StatusError) return e.code !== Code.deadlineExceeded && e.code !== Code.unavailable;
  return !Fault.from(e).retryable;
}

/** Whether the connection failed rather than the call. */
function isBroken(e: unknown): boolean {
  return e instanceof Fault && e.code === "unavailable" && e.context.sent !== undefined;
}

/** Whether the peer may have seen the request. */
function wasSent(e: unknown): boolean {
  return e instanceof Fault && e.context.sent === true;
}

function unanswered(method: string, cause: unknown): StatusError {
  const message = `${method}: the connection to the pod VM broke before its answer came, and a stock agent cannot be asked twice`;
  return new StatusError(Code.unavailable, message, [], { cause });
}

function timeLeft(end: number, method: string): number {
  const left = end - performance.now();
  if (left <= 0) throw new StatusError(Code.deadlineExceeded, `${method} got no answer from the pod VM in time`);
  return left;
}
