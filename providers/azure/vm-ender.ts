import type { Call } from "../../src/base/call.ts";
import { type Clock, sleepOn } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Logger } from "../../src/base/log.ts";
import type { ArmApi } from "./arm-api.ts";
import { kindOf } from "./faults.ts";
import type { Parts } from "./parts.ts";
import type { Recent } from "./recent.ts";
import type { VmReader } from "./vm-reader.ts";
import { stateOf } from "./vm-state.ts";

export interface VmEnderDeps {
  readonly api: ArmApi;
  readonly reader: VmReader;
  readonly parts: Parts;
  readonly recent: Recent;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pollMs: number;
}

interface Ending {
  /** What is waited for: that the VM is gone, that it is shown at all, that its parts are gone. */
  stage: "vm" | "unseen" | "parts";
  /** Parts may be left: it was not seen whole. */
  doubt: boolean;
  /** Not looked at again before, ms. */
  nextLook: number;
  waitMs: number;
}

const MAX_WAIT_MS = 15_000;
const SLOWER = 1.5;
/** A part that something still uses is tried again after this, ms. */
const PARTS_WAIT_MS = 10_000;

/**
 * Ends VMs. Azure accepts a deletion and is some time about it, with all that is to go along; whether it has come to its
 * end is looked up less and less often, whoever asks how often. Where something may be left it is looked for by tag.
 */
export class VmEnder {
  readonly #deps: VmEnderDeps;
  readonly #endings = new Map<InstanceId, Ending>();
  readonly #closing = new AbortController();

  constructor(deps: VmEnderDeps) {
    this.#deps = deps;
  }

  /** Asked again until it says "gone". @throws Fault of faults.ts */
  async end(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    if (this.#deps.recent.isDeleted(id)) return "gone";
    const ending = this.#endings.get(id);
    if (ending === undefined) return this.#begin(id, call);
    if (this.#now() < ending.nextLook) return "deleting";
    // Whoever asks meanwhile is not to ask Azure too.
    ending.nextLook = this.#now() + ending.waitMs;
    ending.waitMs = Math.min(ending.waitMs * SLOWER, MAX_WAIT_MS);
    if (ending.stage === "parts") return this.#endParts(id, ending, call);
    if (ending.stage === "unseen") return this.#askAgain(id, ending, call);
    return this.#look(id, ending, call);
  }

  isEnding(id: InstanceId): boolean {
    return this.#endings.has(id);
  }

  /** Removes what a create has left that came to nothing, in the background: a crash leaves it to who lists by tag. */
  clean(id: InstanceId): void {
    const call: Call = { signal: this.#closing.signal, background: true };
    const run = async (): Promise<void> => {
      while ((await this.end(id, call)) !== "gone") {
        const { nextLook = 0 } = this.#endings.get(id) ?? {};
        await sleepOn(this.#deps.clock, Math.max(50, nextLook - this.#now()), call);
      }
    };
    run().catch((e: unknown) => {
      if (this.#closing.signal.aborted) return;
      const reason = Fault.from(e).fullMessage;
      this.#deps.log.warn({ instance: id, reason }, "what a create left is not removed yet: the next listing finds it");
    });
  }

  close(): void {
    this.#closing.abort(new Fault("cancelled", "the provider is closing"));
  }

  #now(): number {
    return this.#deps.clock.now().getTime();
  }

  async #begin(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    const { api, reader, recent, pollMs, log } = this.#deps;
    const whole = reader.kept(id)?.vm.provisioningState === "Succeeded";
    const there = await api.deleteVm(id, call).catch((e: unknown) => {
      if (kindOf(e) !== "throttled") recent.noteEnding(id); // the answer may be lost, and not the request
      throw e;
    });
    // What a read has shown is there no more: an earlier try of this request, or another adaptor, may have ended it.
    const stage = there ? "vm" : recent.isUnshown(id) ? "unseen" : "parts";
    const ending: Ending = { stage, doubt: !whole, nextLook: this.#now() + pollMs, waitMs: pollMs };
    this.#endings.set(id, ending);
    if (there) log.info({ instance: id }, "Azure has accepted the deletion of the VM");
    if (there) recent.noteEnding(id);
    return stage === "parts" ? this.#endParts(id, ending, call) : "deleting";
  }

  /** Azure may not show yet what it has just made. */
  async #askAgain(id: InstanceId, ending: Ending, call: Call): Promise<"deleting" | "gone"> {
    const { api, recent } = this.#deps;
    if (await api.deleteVm(id, call)) ending.stage = "vm";
    else if (!recent.isUnshown(id)) ending.stage = "parts";
    return "deleting";
  }

  async #look(id: InstanceId, ending: Ending, call: Call): Promise<"deleting" | "gone"> {
    const view = await this.#deps.reader.read(id, 0, call);
    if (view === undefined) return ending.doubt ? this.#endParts(id, ending, call) : this.#gone(id);
    // The deletion has failed, or something else came in between.
    if (stateOf(view.vm).state !== "deleting" && !(await this.#deps.api.deleteVm(id, call))) {
      return this.#endParts(id, ending, call);
    }
    return "deleting";
  }

  async #endParts(id: InstanceId, ending: Ending, call: Call): Promise<"deleting" | "gone"> {
    const { parts } = this.#deps;
    ending.stage = "parts";
    const left = await parts.of(id, call);
    if (left.length === 0) return this.#gone(id);
    await parts.remove(left, call);
    ending.waitMs = Math.min(ending.waitMs, PARTS_WAIT_MS);
    ending.nextLook = this.#now() + ending.waitMs;
    return "deleting";
  }

  #gone(id: InstanceId): "gone" {
    this.#endings.delete(id);
    this.#deps.recent.noteDeleted(id);
    this.#deps.reader.note(id, undefined);
    return "gone";
  }
}
