import type { Call } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import type { OperationKind, OperationQueue } from "../operation/index.ts";
import { amend, type Events, isStuckDelete } from "../podvm/index.ts";
import type { AdaptorStore, OperationRecord, SandboxRecord } from "../store/index.ts";
import { alone, type Fence, type Pass, type Reconciler } from "./reconciler.ts";

export interface StuckSandboxesDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly events: Events;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
  /** How long records and operations that are over are kept, ms. */
  readonly retentionMs: number;
  /** A lost sandbox is stopped after this, ms: its node has had time to do so itself. */
  readonly lostGraceMs: number;
  /** A deletion that takes longer is told of, ms. */
  readonly stuckDeleteMs: number;
}

/** Sees to it that every record that is on its way somewhere has an operation that takes it there, and forgets old ones. */
export class StuckSandboxes implements Reconciler {
  readonly name = "stuck-sandboxes";
  readonly intervalMs: number;
  readonly #deps: StuckSandboxesDeps;
  #told: ReadonlySet<string> = new Set();

  constructor(deps: StuckSandboxesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call, fence: Fence = alone): Promise<Pass> {
    const { store, now, retentionMs } = this.#deps;
    // All of them at once: asking for each record's would be thousands of questions in a burst.
    const active = await store.operations.list({ states: ["queued", "running"] });
    this.#tellOfStuck(active);
    const working = new Set(active.map((o) => `${o.kind} ${o.subject}`));
    let repaired = 0;
    let examined = 0;
    for await (const part of store.sandboxes.scan(["creating", "stopping", "failed", "lost", "gone"])) {
      for (const record of part) {
        if (call.signal.aborted) return { examined, repaired };
        examined++;
        if (await this.#repair(record, working, fence)) repaired++;
      }
    }
    await fence();
    await store.operations.prune(new Date(now().getTime() - retentionMs));
    return { examined, repaired };
  }

  async #repair(record: SandboxRecord, working: ReadonlySet<string>, fence: Fence): Promise<boolean> {
    const { store, now, retentionMs, lostGraceMs } = this.#deps;
    const ageMs = now().getTime() - new Date(record.phaseSince).getTime();
    switch (record.phase) {
      case "creating":
        return this.#resubmit(record, "start-vm", {}, working, fence);
      case "stopping":
      case "failed":
        if (record.intent !== undefined) {
          const reason = record.stopReason ?? "its start failed";
          return this.#resubmit(record, "stop-vm", { reason }, working, fence);
        }
        return record.phase === "failed" && ageMs > retentionMs ? this.#forget(record, fence) : false;
      case "lost":
        if (ageMs <= lostGraceMs) return false;
        await fence();
        await amend(store.sandboxes, record.id, ({ phase }) =>
          phase === "lost" ? { phase: "stopping", stopReason: "its instance ended by itself" } : undefined,
        );
        return true;
      case "gone":
        return ageMs > retentionMs ? this.#forget(record, fence) : false;
      default:
        return false;
    }
  }

  async #resubmit(
    record: SandboxRecord,
    kind: OperationKind,
    input: { reason?: string },
    working: ReadonlySet<string>,
    fence: Fence,
  ): Promise<boolean> {
    const { store, queue, log } = this.#deps;
    if (working.has(`${kind} ${record.id}`)) return false;
    const active = await store.operations.list({ subject: record.id, kind, states: ["queued", "running"], limit: 1 });
    if (active.length > 0) return false;
    await fence();
    // The record may have moved on since it was read; the handlers look again, so a needless operation does nothing.
    await queue.submit({ kind, subject: record.id, input: input as { reason: string } });
    log.warn({ sandbox: record.id, phase: record.phase, kind }, "sandbox had no operation and got one");
    return true;
  }

  #tellOfStuck(active: readonly OperationRecord[]): void {
    const { now, stuckDeleteMs, events } = this.#deps;
    const stuck = active.filter((o) => isStuckDelete(o, now(), stuckDeleteMs));
    for (const { id, kind, subject, submittedAt, fault } of stuck.filter((o) => !this.#told.has(o.id))) {
      const said = fault === undefined ? "" : `; the last error was: ${fault.message}`;
      const message = `a deletion is not over since ${submittedAt}${said}`;
      const about = kind === "stop-vm" ? { sandbox: subject } : { instance: subject };
      events.note("DeleteStuck", { operation: id, ...about }, message);
    }
    this.#told = new Set(stuck.map((o) => o.id));
  }

  async #forget(record: SandboxRecord, fence: Fence): Promise<boolean> {
    await fence();
    await this.#deps.store.sandboxes.remove(record);
    return true;
  }
}
