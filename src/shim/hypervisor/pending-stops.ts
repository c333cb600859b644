import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate, readIfThere, removeTemporaries, writeFileAtomic } from "../../base/files.ts";
import { parseSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, sleep } from "../../base/retry.ts";

const BASE_MS = 200;
const MAX_MS = 10_000;
const SUFFIX = ".json";

export interface PendingStop {
  readonly id: SandboxId;
  readonly reason: string;
  /** For an adaptor that has lost the record. */
  readonly instanceId?: string;
}

export type DeliverStop = (stop: PendingStop, call: Call) => Promise<void>;

/**
 * StopVM requests that nobody has confirmed yet, one file each: written before the request goes out, removed when it
 * was answered. What an earlier daemon left is delivered by this one.
 */
export class PendingStops {
  readonly #deps: { readonly dir: string; readonly deliver: DeliverStop; readonly log: Logger };
  readonly #pending = new Map<SandboxId, PendingStop>();
  readonly #over = new AbortController();
  #running: Promise<void> | undefined;

  private constructor(deps: { readonly dir: string; readonly deliver: DeliverStop; readonly log: Logger }) {
    this.#deps = deps;
  }

  static async open(deps: {
    readonly dir: string;
    readonly deliver: DeliverStop;
    readonly log: Logger;
  }): Promise<PendingStops> {
    const stops = new PendingStops(deps);
    await mkdirPrivate(deps.dir);
    await removeTemporaries(deps.dir);
    for (const name of await readdir(deps.dir)) {
      if (!name.endsWith(SUFFIX)) continue; // not ours
      const id = parseSandboxId(name.slice(0, -SUFFIX.length));
      stops.#pending.set(id, read(id, await readIfThere(join(deps.dir, name))));
    }
    stops.#retry();
    return stops;
  }

  list(): readonly PendingStop[] {
    return [...this.#pending.values()];
  }

  /**
   * Makes the stop durable, then tries once to deliver it; a try that fails goes on in the background.
   * @throws Fault only when it could be neither delivered nor written down
   */
  async submit(wanted: PendingStop, call: Call): Promise<void> {
    // The second stop of a sandbox does not know its instance any more, and may be the one that is delivered.
    const stop = { ...this.#pending.get(wanted.id), ...wanted };
    const { id, ...rest } = stop;
    let unwritten: unknown;
    this.#pending.set(id, stop);
    try {
      await writeFileAtomic(this.#path(id), JSON.stringify(rest));
    } catch (e) {
      unwritten = e;
    }
    try {
      await this.#deliver(stop, call);
    } catch (e) {
      if (!this.#pending.has(id)) {
        // Another try has delivered it meanwhile, perhaps before the file was written again.
        await rm(this.#path(id), { force: true });
        return;
      }
      this.#deps.log.warn({ sandbox: id, err: e }, "stop is not delivered yet, trying on");
      this.#retry();
      if (unwritten !== undefined) {
        const message = `the stop of sandbox ${id} is neither delivered nor on disk`;
        throw new Fault("unavailable", message, { sandboxId: id }, { cause: unwritten });
      }
    }
  }

  async close(): Promise<void> {
    this.#over.abort(new Fault("cancelled", "the node daemon ends"));
    await this.#running;
  }

  async #deliver(stop: PendingStop, call: Call): Promise<void> {
    const { id } = stop;
    await this.#deps.deliver(stop, call);
    this.#pending.delete(id);
    await rm(this.#path(id), { force: true });
  }

  #retry(): void {
    if (this.#running !== undefined || this.#pending.size === 0) return;
    this.#running = this.#loop().finally(() => {
      this.#running = undefined;
      if (!this.#over.signal.aborted) this.#retry();
    });
  }

  async #loop(): Promise<void> {
    const call = { signal: this.#over.signal };
    for (let attempt = 0; this.#pending.size > 0; attempt++) {
      try {
        for (const stop of this.list()) await this.#deliver(stop, call);
      } catch (e) {
        if (call.signal.aborted) return;
        this.#deps.log.debug({ pending: this.#pending.size, err: e }, "stops are not delivered yet");
        await sleep(backoffMs(attempt, BASE_MS, MAX_MS), call).catch(() => undefined); // the end is seen above
      }
      if (call.signal.aborted) return;
    }
  }

  #path(id: SandboxId): string {
    return join(this.#deps.dir, `${id}${SUFFIX}`);
  }
}

function read(id: SandboxId, text: string | undefined): PendingStop {
  try {
    const { reason, instanceId } = JSON.parse(text ?? "") as { reason: unknown; instanceId?: unknown };
    return { id, reason: String(reason), ...(typeof instanceId === "string" ? { instanceId } : {}) };
  } catch {
    return { id, reason: "left by an earlier daemon" }; // the id, which is the file's name, is what matters
  }
}
