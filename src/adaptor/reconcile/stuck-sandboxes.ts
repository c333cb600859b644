import type { Call } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import type { OperationKind, OperationQueue } from "../operation/index.ts";
import { amend } from "../podvm/index.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";
import type { Pass, Reconciler } from "./reconciler.ts";

export interface StuckSandboxesDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
  /** How long records and operations that are over are kept, ms. */
  readonly retentionMs: number;
  /** A lost sandbox is stopped after this, ms: its node has had time to do so itself. */
  readonly lostGraceMs: number;
}

/** Sees to it that every record that is on its way somewhere has an operation that takes it there, and forgets old ones. */
export class StuckSandboxes implements Reconciler {
  readonly name = "stuck-sandboxes";
  readonly intervalMs: number;
  readonly #deps: StuckSandboxesDeps;

  constructor(deps: StuckSandboxesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call): Promise<Pass> {
    const { store, now, retentionMs } = this.#deps;
    const records = await store.sandboxes.list({ phases: ["creating", "stopping", "failed", "lost", "gone"] });
    let repaired = 0;
    for (const record of records) {
      if (call.signal.aborted) break;
      if (await this.#repair(record)) repaired++;
    }
    await store.operations.prune(new Date(now().getTime() - retentionMs));
    return { examined: records.length, repaired };
  }

  async #repair(record: SandboxRecord): Promise<boolean> {
    const { store, now, retentionMs, lostGraceMs } = this.#deps;
    const ageMs = now().getTime() - new Date(record.phaseSince).getTime();
    switch (record.phase) {
      case "creating":
        return this.#resubmit(record, "start-vm", {});
      case "stopping":
      case "failed":
        if (record.intent !== undefined)
          return this.#resubmit(record, "stop-vm", { reason: record.stopReason ?? "its start failed" });
        return record.phase === "failed" && ageMs > retentionMs ? this.#forget(record) : false;
      case "lost":
        if (ageMs <= lostGraceMs) return false;
        await amend(store.sandboxes, record.id, ({ phase }) =>
          phase === "lost" ? { phase: "stopping", stopReason: "its instance ended by itself" } : undefined,
        );
        return true;
      case "gone":
        return ageMs > retentionMs ? this.#forget(record) : false;
      default:
        return false;
    }
  }

  async #resubmit(record: SandboxRecord, kind: OperationKind, input: { reason?: string }): Promise<boolean> {
    const { store, queue, log } = this.#deps;
    const active = await store.operations.list({ subject: record.id, kind, states: ["queued", "running"], limit: 1 });
    if (active.length > 0) return false;
    // The record may have moved on since it was read; the handlers look again, so a needless operation does nothing.
    await queue.submit({ kind, subject: record.id, input: input as { reason: string } });
    log.warn({ sandbox: record.id, phase: record.phase, kind }, "sandbox had no operation and got one");
    return true;
  }

  async #forget(record: SandboxRecord): Promise<boolean> {
    await this.#deps.store.sandboxes.remove(record);
    return true;
  }
}
