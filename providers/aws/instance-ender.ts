import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";

/** Ids in one request. Source: EC2 API reference, TerminateInstances, which recommends batches below 1000. */
const BATCH = 200;
const TIMEOUT_MS = 120_000;

/** EC2 refuses a request as a whole for one id that it does not know, or that is protected. */
const SPLIT: ReadonlySet<string | undefined> = new Set(["not-found", "refused"]);

interface Batch {
  readonly ids: Map<InstanceId, PromiseWithResolvers<void>>;
  background: boolean;
}

/**
 * Ends instances with as few requests as there can be: all that are asked for while one waits for its turn go along
 * with it. Where EC2 refuses a batch for the sake of one id, the halves are asked for.
 */
export class InstanceEnder {
  readonly #deps: { readonly api: Ec2Api; readonly windowMs: number; readonly clock: Clock };
  #open: Batch | undefined;

  constructor(deps: { readonly api: Ec2Api; readonly windowMs: number; readonly clock: Clock }) {
    this.#deps = deps;
  }

  /** Resolves when EC2 has accepted the end. @throws Fault of faults.ts, for this instance alone */
  end(id: InstanceId, call: Call): Promise<void> {
    if (this.#open === undefined || this.#open.ids.size >= BATCH) this.#open = this.#begin();
    const batch = this.#open;
    if (call.background !== true) batch.background = false;
    const outcome = batch.ids.get(id) ?? Promise.withResolvers<void>();
    batch.ids.set(id, outcome);
    return race(outcome.promise, call);
  }

  #begin(): Batch {
    const { api, clock, windowMs } = this.#deps;
    const batch: Batch = { ids: new Map(), background: true };
    const close = (): readonly InstanceId[] => {
      if (this.#open === batch) this.#open = undefined;
      return [...batch.ids.keys()];
    };
    const end = async (): Promise<void> => {
      // Of all who wait, whoever of them gives up.
      const call = { ...withDeadline(TIMEOUT_MS), background: batch.background };
      try {
        await api.terminateInstances(close, call);
        for (const outcome of batch.ids.values()) outcome.resolve();
      } catch (e) {
        close(); // it may never have come to that
        await this.#settle(batch, e, call);
      }
    };
    clock.after(windowMs, () => void end());
    return batch;
  }

  async #settle({ ids }: Batch, error: unknown, call: Call): Promise<void> {
    const all = [...ids.keys()];
    const half = Math.ceil(all.length / 2);
    const parts = all.length > 1 && SPLIT.has(kindOf(error)) ? [all.slice(0, half), all.slice(half)] : [];
    if (parts.length === 0) for (const outcome of ids.values()) outcome.reject(error);
    await Promise.all(parts.map((part) => this.#endPart(part, ids, call)));
  }

  async #endPart(part: readonly InstanceId[], ids: Batch["ids"], call: Call): Promise<void> {
    const own: Batch = { ids: new Map(), background: call.background ?? false };
    for (const id of part) own.ids.set(id, ids.get(id) ?? Promise.withResolvers<void>());
    try {
      await this.#deps.api.terminateInstances(() => part, call);
      for (const outcome of own.ids.values()) outcome.resolve();
    } catch (e) {
      await this.#settle(own, e, call);
    }
  }
}
