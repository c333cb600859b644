import { type Call, withDeadline } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, race, sleep } from "../../base/retry.ts";
import { EventsDefinition } from "../../gen/containerd/services/events/ttrpc/v1/events.ts";
import type { Envelope } from "../../gen/containerd/types/event.ts";
import { Code, createClient, StatusError, TtrpcClient } from "../../ttrpc/index.ts";
import { dialUnix } from "./dial.ts";

/** Source: containerd runtime/v2/shim publisher: 5 s per call, 2048 events kept. */
const FORWARD_MS = 5_000;
const MAX_EVENTS = 2_048;
/** containerd refuses a malformed event every time; a busy one recovers. */
const MAX_REFUSALS = 5;
const BASE_MS = 100;
const MAX_MS = 10_000;

/** Delivers events to one containerd, in order, one at a time, over reconnects and restarts of it. */
export class EventQueue {
  readonly #path: string;
  readonly #log: Logger;
  readonly #events: Envelope[] = [];
  readonly #closed = new AbortController();
  #running: Promise<void> | undefined;
  #client: TtrpcClient | undefined;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log.child({ sink: path });
  }

  get length(): number {
    return this.#events.length;
  }

  push(envelope: Envelope): void {
    if (this.#events.length >= MAX_EVENTS) {
      // The one in front may be on its way.
      const [lost] = this.#events.splice(1, 1);
      this.#log.error({ topic: lost?.topic, kept: MAX_EVENTS }, "containerd takes no events, one is lost");
    }
    this.#events.push(envelope);
    this.#running ??= this.#run();
  }

  /** Resolves when all events are delivered, or the call ends. */
  async flush(call: Call): Promise<void> {
    await race(this.#running ?? Promise.resolve(), call).catch(() => undefined); // what is left then is lost, as said
  }

  close(): void {
    this.#closed.abort();
    this.#client?.close();
  }

  async #run(): Promise<void> {
    const call: Call = { signal: this.#closed.signal };
    const delays = { attempt: 0, refusals: 0 };
    try {
      for (let event = this.#events[0]; event !== undefined && !call.signal.aborted; event = this.#events[0]) {
        await this.#deliver(event, delays, call);
      }
    } finally {
      // In the same step in which the queue was seen empty: a push after it starts a new run.
      this.#running = undefined;
    }
  }

  async #deliver(event: Envelope, delays: { attempt: number; refusals: number }, call: Call): Promise<void> {
    try {
      await this.#forward(event);
    } catch (err) {
      if (call.signal.aborted) return;
      const refused = err instanceof StatusError && err.code !== Code.deadlineExceeded;
      if (!refused) this.#drop();
      if (!refused || ++delays.refusals < MAX_REFUSALS) {
        this.#log.warn(
          { err, topic: event.topic, attempt: delays.attempt, waiting: this.#events.length },
          "event not delivered yet",
        );
        await sleep(backoffMs(delays.attempt++, BASE_MS, MAX_MS), call).catch(() => undefined); // the loop's condition ends it
        return;
      }
      this.#log.error({ err, topic: event.topic }, "containerd refused an event, it is lost");
    }
    this.#events.shift();
    delays.attempt = 0;
    delays.refusals = 0;
  }

  async #forward(envelope: Envelope): Promise<void> {
    const client = await this.#connect();
    await createClient(EventsDefinition, client).forward(
      { envelope },
      { timeoutMs: FORWARD_MS, signal: this.#closed.signal },
    );
  }

  async #connect(): Promise<TtrpcClient> {
    if (this.#client !== undefined) return this.#client;
    const socket = await dialUnix(this.#path, withDeadline(FORWARD_MS, { signal: this.#closed.signal }));
    // An idle connection must not keep the daemon alive.
    socket.unref();
    const client = new TtrpcClient(socket, { log: this.#log });
    this.#client = client;
    void client.closed.then(() => {
      if (this.#client === client) this.#client = undefined;
    });
    return client;
  }

  #drop(): void {
    this.#client?.close();
    this.#client = undefined;
  }
}
