import type { Call } from "../../base/call.ts";
import type { InstanceId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import type { OperationQueue } from "../operation/index.ts";
import { CONFIRMED, type Events, isFromBefore, type NodeSessions, type Recovery, readOwners } from "../podvm/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import { alone, type Fence, type Pass, type Reconciler } from "./reconciler.ts";

export interface OrphanInstancesDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly provider: Provider;
  readonly recovery: Recovery;
  readonly sessions: NodeSessions;
  readonly events: Events;
  readonly cluster: string;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
  /** A younger instance is left alone, ms. */
  readonly graceMs: number;
}

/** Until the second look at an instance that seems to be nobody's, ms. */
const AGAIN_MS = 5_000;

/**
 * Deletes instances that carry our tags and that no record owns: seen so in two passes running, and older than the
 * grace period. While a recovery is open none is deleted. Of those that are older than the store's epoch afterwards only
 * what the recovery has shown to be nobody's: its node has reported since, or an operator has confirmed.
 */
export class OrphanInstances implements Reconciler {
  readonly name = "orphan-instances";
  readonly intervalMs: number;
  readonly #deps: OrphanInstancesDeps;
  #suspects: ReadonlySet<InstanceId> = new Set();
  #reported: ReadonlySet<InstanceId> = new Set();

  constructor(deps: OrphanInstancesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call, fence: Fence = alone): Promise<Pass> {
    const { store, provider, queue, cluster, now, graceMs, events, recovery } = this.#deps;
    // The listing first: a record written meanwhile then owns what the listing already shows.
    const instances = await provider.listInstances(cluster, call);
    const owners = await readOwners(store);
    const unowned = instances.filter((i) => !owners.owns(i));
    if (await recovery.isOpen()) {
      this.#report(unowned.filter((i) => isFromBefore(i, store.epoch)));
      // They have been seen without an owner: the first pass after the recovery is the second look.
      this.#suspects = new Set(unowned.map((i) => i.id));
      return { examined: instances.length, repaired: 0, ...(unowned.length > 0 ? { againMs: AGAIN_MS } : {}) };
    }
    const old = unowned.filter((i) => now().getTime() - Date.parse(i.tags.created) > graceMs);
    const orphans: Instance[] = [];
    const kept: Instance[] = [];
    const reported = old.some((i) => isFromBefore(i, store.epoch)) ? await this.#reportedNodes() : new Set<string>();
    const confirmed = (await recovery.state()).ended === CONFIRMED;
    for (const instance of old) {
      const known = confirmed || reported.has(instance.assigned?.nodeId ?? "");
      if (isFromBefore(instance, store.epoch) && !known) kept.push(instance);
      else orphans.push(instance);
    }
    this.#report(kept);
    const certain = orphans.filter((i) => this.#suspects.has(i.id));
    this.#suspects = new Set(orphans.map((i) => i.id));
    for (const { id, name } of certain) {
      await fence();
      await queue.submit({ kind: "collect-instance", subject: id, input: {} });
      events.note("OrphanRemoved", { instance: id }, `instance ${name} without an owner is being removed`);
    }
    const again = this.#suspects.size > 0 ? { againMs: AGAIN_MS } : {};
    return { examined: instances.length, repaired: certain.length, ...again };
  }

  async #reportedNodes(): Promise<ReadonlySet<string>> {
    const { id } = this.#deps.store.epoch;
    const sessions = await this.#deps.sessions.list();
    return new Set(sessions.filter((s) => s.epoch === id || s.forgotten === true).map((s) => s.nodeId));
  }

  #report(instances: readonly Instance[]): void {
    const fresh = instances.filter((i) => !this.#reported.has(i.id));
    this.#reported = new Set(instances.map((i) => i.id));
    if (fresh.length === 0) return;
    this.#deps.log.error(
      { instances: fresh.map((i) => i.id), epoch: this.#deps.store.epoch.createdAt.toISOString() },
      "instances older than this store have no record and are kept: see `kata-remote adaptor problems`",
    );
  }
}
