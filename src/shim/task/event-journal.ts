import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { mkdirPrivate, readIfThere, replaceFile } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { Envelope } from "../../gen/containerd/types/event.ts";

/** An event and the number under which it is kept. */
export interface KeptEvent {
  readonly number: number;
  readonly envelope: Envelope;
}

/** Holds the address of the sink that the other files of its directory are for. */
const SINK = "sink";
const EVENT = /^[0-9]{12}$/;

/**
 * Events of one sink that are not delivered yet: `<run dir>/events/<hash of the sink>/<number>`. A daemon that dies
 * between an event's delivery and the file's removal leaves it to be delivered twice, never not at all.
 */
export class EventJournal {
  readonly sink: string;
  readonly #dir: string;
  readonly #log: Logger;
  #last = 0;
  /** Files are written and removed in order. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(root: string, sink: string, log: Logger) {
    this.sink = sink;
    this.#dir = join(root, createHash("sha256").update(sink).digest("hex").slice(0, 16));
    this.#log = log;
  }

  /** The sinks that an earlier daemon had events for. */
  static async sinks(root: string): Promise<readonly string[]> {
    await mkdirPrivate(root);
    const sinks = await Promise.all((await readdir(root)).map((name) => readIfThere(join(root, name, SINK))));
    return sinks.filter((sink) => sink !== undefined);
  }

  /** What an earlier daemon left, in order. */
  async load(): Promise<readonly KeptEvent[]> {
    const kept: KeptEvent[] = [];
    const names = (await readdir(this.#dir)).filter((name) => EVENT.test(name)).sort();
    for (const name of names) {
      const number = Number(name);
      this.#last = number;
      try {
        kept.push({ number, envelope: Envelope.decode(await readFile(join(this.#dir, name))) });
      } catch (err) {
        this.#log.error({ err, sink: this.sink, event: number }, "an event is not readable, it is lost");
        await rm(join(this.#dir, name), { force: true });
      }
    }
    return kept;
  }

  /** Keeps an event. `kept` resolves when it is safe from this process's end, also when it cannot be made so. */
  add(envelope: Envelope): { readonly event: KeptEvent; readonly kept: Promise<void> } {
    const number = ++this.#last;
    const kept = this.#inOrder(async () => {
      if (number === 1) await mkdirPrivate(this.#dir);
      if (number === 1) await replaceFile(join(this.#dir, SINK), this.sink);
      await replaceFile(this.#path(number), Envelope.encode(envelope).finish());
    });
    return { event: { number, envelope }, kept };
  }

  /** It is delivered, or given up. */
  remove(event: KeptEvent): void {
    void this.#inOrder(() => rm(this.#path(event.number), { force: true }));
  }

  /** Resolves when nothing is being written any more. */
  async settled(): Promise<void> {
    await this.#tail;
  }

  #inOrder(work: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(work).catch((err: unknown) => {
      this.#log.error({ err, sink: this.sink }, "an event cannot be kept: a crash now would lose it");
    });
    this.#tail = done;
    return done;
  }

  #path(number: number): string {
    return join(this.#dir, String(number).padStart(12, "0"));
  }
}
