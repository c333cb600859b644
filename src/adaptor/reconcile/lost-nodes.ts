import type { Call } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import type { Events, NodeSession, NodeSessions, Recovery } from "../podvm/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import { alone, type Fence, type Pass, type Reconciler } from "./reconciler.ts";

export interface LostNodesDeps {
  readonly store: Pick<AdaptorStore, "sandboxes">;
  readonly sessions: Pick<NodeSessions, "list" | "remove">;
  readonly recovery: Pick<Recovery, "isOpen">;
  readonly events: Pick<Events, "note">;
  readonly log: Logger;
  readonly now: () => Date;
  /** Stops all sandboxes of a node and has nobody wait for it any more. */
  readonly forget: (nodeId: string, reason: string) => Promise<unknown>;
  readonly intervalMs: number;
  readonly silentMs: number;
  /** 0: a silent node's sandboxes are never stopped without an operator. */
  readonly goneMs: number;
}

/** What is remembered of a node that has nothing any more is dropped after this, ms. */
const DROP_MS = 24 * 3_600_000;
/** A pass that comes later than two intervals and this was held up: nobody listened meanwhile, ms. */
const HELD_UP_MS = 15_000;

/**
 * Watches how long nodes have not been heard of. One that is silent is reported. When the operator has set a time, what
 * runs on a node that was silent for that long is stopped; but never while most nodes are silent (then it is we who
 * cannot be reached), during a recovery, or for silence from before this adaptor listened: it was started, was frozen,
 * could not reach its store, or another adaptor led this loop.
 */
export class LostNodes implements Reconciler {
  readonly name = "lost-nodes";
  readonly intervalMs: number;
  readonly #deps: LostNodesDeps;
  /** Since when somebody has listened without a gap, ms since the epoch. */
  #since: number;
  #lastPass: number;
  #told: ReadonlySet<string> = new Set();

  constructor(deps: LostNodesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
    this.#since = deps.now().getTime();
    this.#lastPass = this.#since;
  }

  async reconcile(_call: Call, fence: Fence = alone): Promise<Pass> {
    const { sessions, silentMs, goneMs, recovery, forget, events, log, now } = this.#deps;
    const all = (await sessions.list()).filter((s) => s.forgotten !== true);
    this.#noteGap(now().getTime());
    const silent = all.filter((s) => this.#silence(s) > silentMs);
    for (const s of silent.filter((one) => !this.#told.has(one.nodeId))) {
      events.note("NodeSilent", { node: s.nodeId }, `node ${s.nodeId} was heard of last at ${s.reportedAt}`);
    }
    this.#told = new Set(silent.map((s) => s.nodeId));
    let repaired = 0;
    const mostAreSilent = silent.length > 1 && silent.length * 2 > all.length;
    const gone = goneMs === 0 ? [] : silent.filter((s) => this.#silence(s) > goneMs);
    if (gone.length > 0 && mostAreSilent) {
      log.error({ silent: silent.length, nodes: all.length }, "most nodes are silent: none of them is taken for gone");
    } else if (gone.length > 0 && !(await recovery.isOpen())) {
      for (const { nodeId } of gone) {
        await fence();
        const seconds = Math.round(goneMs / 1000);
        await forget(nodeId, `its node was not heard of for ${seconds} s (nodes.goneMs)`);
        repaired++;
      }
    }
    for (const session of await sessions.list()) {
      if (now().getTime() - Date.parse(session.reportedAt) > DROP_MS) await this.#drop(session, fence);
    }
    return { examined: all.length, repaired };
  }

  /** Only a pass that read the store counts as listening. */
  #noteGap(at: number): void {
    if (at - this.#lastPass > 2 * this.intervalMs + HELD_UP_MS) this.#since = at;
    this.#lastPass = at;
  }

  /** How long a node was silent while somebody listened, ms. */
  #silence(session: NodeSession): number {
    return this.#deps.now().getTime() - Math.max(Date.parse(session.reportedAt), this.#since);
  }

  async #drop(session: NodeSession, fence: Fence): Promise<void> {
    const { store, sessions } = this.#deps;
    const records = await store.sandboxes.list({ nodeId: session.nodeId });
    if (records.some((r) => r.phase !== "gone")) return;
    await fence();
    await sessions.remove(session);
  }
}
