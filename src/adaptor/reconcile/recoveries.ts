import type { Call } from "../../base/call.ts";
import type { Provider } from "../../provider/index.ts";
import {
  type Events,
  isFromBefore,
  type NodeSession,
  type NodeSessions,
  type Recovery,
  type RecoveryState,
  readOwners,
  recoveryAdvice,
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

/** Until the next look while something may end it soon, ms. */
const AGAIN_MS = 2_000;

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
  /** How it stood when the instances were listed last. */
  #last: { readonly state: RecoveryState; readonly at: number } | undefined;

  constructor(deps: RecoveriesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call, fence: Fence = alone): Promise<Pass> {
    const { recovery, events } = this.#deps;
    const epoch = this.#deps.store.epoch.id;
    if (!(await recovery.isOpen())) return { examined: 0, repaired: 0 };
    if (await this.#stillWaits(epoch)) return { examined: 0, repaired: 0, againMs: AGAIN_MS };
    const { state, examined, ended } = await this.#look(call);
    if (ended === undefined) {
      this.#overAt = undefined;
      await fence();
      await recovery.note(state);
      this.#tell(state);
      this.#last = { state, at: performance.now() };
      return { examined, repaired: 0, ...(state.waitingFor.length > 0 ? { againMs: AGAIN_MS } : {}) };
    }
    const sure = this.#overAt === epoch;
    this.#overAt = epoch;
    if (!sure) return { examined, repaired: 0, againMs: AGAIN_MS };
    await fence();
    await recovery.note({ ...state, open: false, ended });
    if (this.#toldOf?.startsWith(epoch) === true) events.note("RecoveryOver", {}, `the recovery is over: ${ended}`);
    return { examined, repaired: 1 };
  }

  /** Whether nodes that were missing at the last listing still are: there is no need for the next one before its time. */
  async #stillWaits(epoch: string): Promise<boolean> {
    const { state, at } = this.#last ?? {};
    if (state?.epoch !== epoch || at === undefined || performance.now() - at >= this.intervalMs) return false;
    const done = this.#haveReported(await this.#deps.sessions.list(), epoch);
    return state.waitingFor.some((node) => !done.has(node));
  }

  #haveReported(sessions: readonly NodeSession[], epoch: string): ReadonlySet<string> {
    return new Set(sessions.filter((s) => s.epoch === epoch || s.forgotten === true).map((s) => s.nodeId));
  }

  /** Once, and again when there is something that only an operator can end. */
  #tell(state: RecoveryState): void {
    const told = `${state.epoch} ${state.unassigned.length > 0}`;
    if (this.#toldOf === told) return;
    this.#toldOf = told;
    const advice = recoveryAdvice(state);
    const message = `records may be lost: ${state.kept.length} instances are kept, ${state.unassigned.length} of them name no node${advice === undefined ? "" : `; ${advice}`}`;
    this.#deps.events.note("RecoveryOpen", {}, message);
  }

  async #look(call: Call): Promise<{ state: RecoveryState; examined: number; ended: string | undefined }> {
    const { store, provider, sessions, cluster } = this.#deps;
    const { id, createdAt } = store.epoch;
    const instances = await provider.listInstances(cluster, call);
    const owners = await readOwners(store);
    const kept = instances.filter((i) => isFromBefore(i, { id, createdAt }) && !owners.owns(i));
    const known = await sessions.list();
    const done = this.#haveReported(known, id);
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
