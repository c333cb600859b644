import { type Call, withDeadline } from "../../base/call.ts";
import { dialUnix } from "../../base/dial-unix.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, race, sleep } from "../../base/retry.ts";
import { EventsDefinition } from "../../gen/containerd/services/events/ttrpc/v1/events.ts";
import type { Envelope } from "../../gen/containerd/types/event.ts";
import { Code, createClient, StatusError, TtrpcClient } from "../../ttrpc/index.ts";
import type { EventJournal, KeptEvent } from "./event-journal.ts";

/** Source: containerd runtime/v2/shim publisher: 5 s per call, 2048 events kept. */
const FORWARD_MS = 5_000;
const MAX_EVENTS = 2_048;
/** containerd refuses a malformed event every time; a busy one recovers. */
const MAX_REFUSALS = 5;
const BASE_MS = 100;
const MAX_MS = 10_000;

/** Delivers events to one containerd, in order, one at a time, over reconnects and restarts of it and of this daemon. */
export class EventQueue {
  readonly #journal: EventJournal;
  readonly #log: Logger;
  readonly #events: KeptEvent[] = [];
  readonly #closed = new AbortController();
  #running: Promise<void> | undefined;
  #client: TtrpcClient | undefined;

  constructor(journal: EventJournal, log: Logger) {
    this.#journal = journal;
    this.#log = log.child({ sink: journal.sink });
  }

  /** Takes up what an earlier daemon did not deliver. Before the first push. */
  async restore(): Promise<void> {
    this.#events.push(...(await this.#journal.load()));
    if (this.#events.length > 0) this.#running ??= this.#run();
  }

  get length(): number {
    return this.#events.length;
  }

  /** Resolves when the event is safe from this process's end. */
  push(envelope: Envelope): Promise<void> {
    if (this.#events.length >= MAX_EVENTS) {
      // The one in front may be on its way.
      const [lost] = this.#events.splice(1, 1);
      this.#log.error({ topic: lost?.envelope.topic, kept: MAX_EVENTS }, "containerd takes no events, one is lost");
      if (lost !== undefined) this.#journal.remove(lost);
    }
    const { event, kept } = this.#journal.add(envelope);
    this.#events.push(event);
    this.#running ??= this.#run();
    return kept;
  }

  /** Resolves when all events are delivered, or the call ends. */
  async flush(call: Call): Promise<void> {
    await race(this.#running ?? Promise.resolve(), call).catch(() => undefined); // what is left then is the next daemon's
    await this.#journal.settled();
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

  async #deliver(event: KeptEvent, delays: { attempt: number; refusals: number }, call: Call): Promise<void> {
    try {
      await this.#forward(event.envelope);
    } catch (err) {
      if (call.signal.aborted) return;
      const refused = err instanceof StatusError && err.code !== Code.deadlineExceeded;
      if (!refused) this.#drop();
      if (!refused || ++delays.refusals < MAX_REFUSALS) {
        this.#log.warn(
          { err, topic: event.envelope.topic, attempt: delays.attempt, waiting: this.#events.length },
          "event not delivered yet",
        );
        await sleep(backoffMs(delays.attempt++, BASE_MS, MAX_MS), call).catch(() => undefined); // the loop's condition ends it
        return;
      }
      this.#log.error({ err, topic: event.envelope.topic }, "containerd refused an event, it is lost");
    }
    this.#events.shift();
    this.#journal.remove(event);
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
    const socket = await dialUnix(this.#journal.sink, withDeadline(FORWARD_MS, { signal: this.#closed.signal }));
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
