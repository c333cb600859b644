import type { Call } from "../../base/call.ts";
import type { Provider } from "../../provider/index.ts";
import {
  type Events,
  isFromBefore,
  type NodeSessions,
  type Recovery,
  type RecoveryState,
  readOwners,
} from "../podvm/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import { isPlausible } from "./plausible-listing.ts";
import { alone, type Fence, type Pass, type Reconciler } from "./reconciler.ts";

export interface RecoveriesDeps {
  readonly store: AdaptorStore;
  readonly provider: Provider;
  readonly recovery: Recovery;
  readonly sessions: NodeSessions;
  readonly events: Events;
  readonly cluster: string;
  readonly intervalMs: number;
}

/**
 * Looks whether the recovery that began with the store's epoch is over: no instance from before is without an owner, or
 * every node that is known or named by such an instance has reported. Two looks running have to say so.
 */
export class Recoveries implements Reconciler {
  readonly name = "recovery";
  readonly intervalMs: number;
  readonly #deps: RecoveriesDeps;
  /** The epoch whose recovery looked over at the last pass. */
  #overAt: string | undefined;
  #toldOf: string | undefined;

  constructor(deps: RecoveriesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call, fence: Fence = alone): Promise<Pass> {
    const { recovery, events } = this.#deps;
    const epoch = this.#deps.store.epoch.id;
    if (!(await recovery.isOpen())) return { examined: 0, repaired: 0 };
    const { state, examined, ended } = await this.#look(call);
    if (ended === undefined) {
      this.#overAt = undefined;
      await fence();
      await recovery.note(state);
      if (this.#toldOf !== epoch) {
        const { waitingFor, unassigned, kept } = state;
        const message = `records may be lost: ${kept.length} instances are kept, ${unassigned.length} of them name no node; not reported yet: ${waitingFor.join(", ") || "none"}`;
        events.note("RecoveryOpen", {}, message);
      }
      this.#toldOf = epoch;
      return { examined, repaired: 0 };
    }
    const sure = this.#overAt === epoch;
    this.#overAt = epoch;
    if (!sure) return { examined, repaired: 0 };
    await fence();
    await recovery.note({ ...state, open: false, ended });
    if (this.#toldOf === epoch) events.note("RecoveryOver", {}, `the recovery is over: ${ended}`);
    return { examined, repaired: 1 };
  }

  async #look(call: Call): Promise<{ state: RecoveryState; examined: number; ended: string | undefined }> {
    const { store, provider, sessions, cluster } = this.#deps;
    const { id, createdAt } = store.epoch;
    const instances = await provider.listInstances(cluster, call);
    const owners = await readOwners(store);
    const kept = instances.filter((i) => isFromBefore(i, { id, createdAt }) && !owners.owns(i));
    const known = await sessions.list();
    const done = new Set(known.filter((s) => s.epoch === id || s.forgotten === true).map((s) => s.nodeId));
    const nodes = new Set([...known.map((s) => s.nodeId), ...kept.flatMap((i) => i.assigned?.nodeId ?? [])]);
    const waitingFor = [...nodes].filter((n) => !done.has(n)).sort();
    const unassigned = kept.filter((i) => i.assigned?.nodeId === undefined).map((i) => i.id);
    const state: RecoveryState = {
      ...{ epoch: id, since: createdAt.toISOString(), open: true },
      ...{ waitingFor, kept: kept.map((i) => i.id), unassigned },
    };
    let ended: string | undefined;
    if (await isPlausible(store, instances)) {
      if (kept.length === 0) ended = "nothing is without an owner";
      else if (waitingFor.length === 0 && unassigned.length === 0) ended = "every node has reported";
    }
    return { state, examined: instances.length, ended };
  }
}
