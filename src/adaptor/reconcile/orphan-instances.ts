import type { Call } from "../../base/call.ts";
import type { InstanceId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import type { OperationQueue } from "../operation/index.ts";
import { isFromBefore, ownsInstance } from "../podvm/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import type { Pass, Reconciler } from "./reconciler.ts";

export interface OrphanInstancesDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly provider: Provider;
  readonly cluster: string;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
  /** A younger instance is left alone, ms. */
  readonly graceMs: number;
}

/**
 * Deletes instances that carry our tags and that no record owns: seen so in two passes running, and older than the
 * grace period. An instance that is older than the store itself is never deleted here: its records are lost, not it.
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

  async reconcile(call: Call): Promise<Pass> {
    const { store, provider, queue, cluster, now, graceMs, log } = this.#deps;
    // The listing first: a record written meanwhile then owns what the listing already shows.
    const instances = await provider.listInstances(cluster, call);
    const records = await store.sandboxes.list();
    const unowned = instances.filter((i) => !records.some((r) => ownsInstance(r, i)));
    this.#report(unowned.filter((i) => isFromBefore(i, store.epoch)));
    const orphans = unowned.filter(
      (i) => !isFromBefore(i, store.epoch) && now().getTime() - Date.parse(i.tags.created) > graceMs,
    );
    const certain = orphans.filter((i) => this.#suspects.has(i.id));
    this.#suspects = new Set(orphans.map((i) => i.id));
    for (const { id, name } of certain) {
      log.warn({ instance: id, name }, "instance without an owner is being removed");
      await queue.submit({ kind: "collect-instance", subject: id, input: {} });
    }
    return { examined: instances.length, repaired: certain.length };
  }

  #report(instances: readonly Instance[]): void {
    const fresh = instances.filter((i) => !this.#reported.has(i.id));
    this.#reported = new Set(instances.map((i) => i.id));
    if (fresh.length === 0) return;
    this.#deps.log.error(
      { instances: fresh.map((i) => i.id), epoch: this.#deps.store.epoch.createdAt.toISOString() },
      "instances older than this store have no record and are kept: delete them with DELETE /v1/instances/<id> when no pod runs in them",
    );
  }
}
