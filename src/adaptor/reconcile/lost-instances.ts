import type { Call } from "../../base/call.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import { amend } from "../podvm/index.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";
import type { Pass, Reconciler } from "./reconciler.ts";

export interface LostInstancesDeps {
  readonly store: AdaptorStore;
  readonly provider: Provider;
  readonly cluster: string;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
}

/**
 * Finds sandboxes whose instance ended by itself and marks them lost, which the node is told by its watch. An instance
 * that failed is lost at once; one that a listing does not show is asked for by id and has to be missing twice.
 */
export class LostInstances implements Reconciler {
  readonly name = "lost-instances";
  readonly intervalMs: number;
  readonly #deps: LostInstancesDeps;
  #missing: ReadonlySet<SandboxId> = new Set();

  constructor(deps: LostInstancesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call): Promise<Pass> {
    const { store, provider, cluster } = this.#deps;
    // Records first: an instance accepted after them cannot be missed in the listing.
    const records = await store.sandboxes.list({ phases: ["booting", "ready"] });
    if (records.length === 0) return { examined: 0, repaired: 0 };
    const instances = new Map((await provider.listInstances(cluster, call)).map((i) => [i.id, i]));
    const missing = new Set<SandboxId>();
    let repaired = 0;
    for (const record of records) {
      if (record.instance === undefined) continue;
      const instance = instances.get(record.instance.id) ?? (await provider.getInstance(record.instance.id, call));
      const reason = reasonOfLoss(instance);
      if (reason === undefined) continue;
      if (instance === undefined && !this.#missing.has(record.id)) missing.add(record.id);
      else if (await this.#markLost(record, reason)) repaired++;
    }
    this.#missing = missing;
    return { examined: records.length, repaired };
  }

  async #markLost(record: SandboxRecord, message: string): Promise<boolean> {
    const { store, now, log } = this.#deps;
    const lastFault = { code: "unavailable", message, at: now().toISOString() };
    const after = await amend(store.sandboxes, record.id, ({ phase, instance }) => {
      const same = instance?.id === record.instance?.id && (phase === "booting" || phase === "ready");
      return same ? { phase: "lost", lastFault } : undefined;
    });
    if (after?.phase !== "lost") return false;
    log.warn(
      { sandbox: record.id, instance: record.instance?.id, node: record.nodeId, reason: message },
      "instance lost",
    );
    return true;
  }
}

function reasonOfLoss(instance: Instance | undefined): string | undefined {
  if (instance === undefined) return "the instance is gone: it was deleted from outside";
  if (instance.state === "failed") return `the instance failed: ${instance.reason ?? "the provider gives no reason"}`;
  if (instance.state === "deleting") return "the instance is being deleted from outside";
  return undefined;
}
