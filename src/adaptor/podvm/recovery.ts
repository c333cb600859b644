import { Fault } from "../../base/fault.ts";
import type { AdaptorStore } from "../store/index.ts";

/** What became of an epoch: the store may have lost records when it began. */
export interface RecoveryState {
  readonly epoch: string;
  /** RFC 3339: nothing that is older may be deleted while it is open. */
  readonly since: string;
  readonly open: boolean;
  /** Nodes that have not reported in this epoch. */
  readonly waitingFor: readonly string[];
  /** Instances from before that no record owns. */
  readonly kept: readonly string[];
  /** Of these, those that name no node: only an operator can say that nothing runs in them. */
  readonly unassigned: readonly string[];
  /** How it ended: `nothing was lost`, `every node has reported`, or by whom it was confirmed. */
  readonly ended?: string;
}

/** What an operator can do about one that is open; undefined when nothing is to be done but to wait a moment. */
export function recoveryAdvice(state: RecoveryState): string | undefined {
  const { open, epoch, unassigned, waitingFor } = state;
  if (!open) return undefined;
  const parts: string[] = [];
  if (unassigned.length > 0) {
    parts.push(
      `${some(unassigned)} may have been launched just when the store lost what it knew, and no tag names a node: no report can say whose they are. ` +
        `They are kept until somebody has seen that no pod runs in them and confirms it: kata-remote adaptor confirm-recovery ${epoch}`,
    );
  }
  if (waitingFor.length > 0) {
    parts.push(
      `not reported since: ${some(waitingFor)}. One that does not come back: kata-remote adaptor forget-node <node>`,
    );
  }
  return parts.length === 0 ? undefined : parts.join("; ");
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}

/** `RecoveryState.ended` when an operator ended it. */
export const CONFIRMED = "an operator confirmed";
const FACT = "recovery";
const LISTED = 50;

/**
 * Each epoch of the store begins with a recovery. It ends as soon as no instance from before the epoch is without an
 * owner, or every node that may know of one has reported, or an operator confirms. Until then nothing is deleted that
 * the store may only have forgotten. Shared by all adaptors of the store.
 */
export class Recovery {
  readonly #store: AdaptorStore;
  #closedEpoch: string | undefined;

  constructor(deps: { readonly store: AdaptorStore }) {
    this.#store = deps.store;
  }

  /** What of it is known here without a look: the store's epoch, and the last one whose recovery is over. */
  get situation(): string {
    return `${this.#store.epoch.id} ${this.#closedEpoch ?? ""}`;
  }

  async isOpen(): Promise<boolean> {
    const { id } = this.#store.epoch;
    if (this.#closedEpoch === id) return false; // for good: an epoch has one recovery
    return (await this.state()).open;
  }

  async state(): Promise<RecoveryState> {
    const { id, createdAt } = this.#store.epoch;
    const known = parse(await this.#store.facts.get(FACT));
    if (known?.epoch === id) {
      if (!known.open) this.#closedEpoch = id;
      return known;
    }
    const since = createdAt.toISOString();
    return { epoch: id, since, open: true, waitingFor: [], kept: [], unassigned: [] };
  }

  /** Writes down how it stands. Whoever ended it first is right. */
  async note(state: RecoveryState): Promise<void> {
    const next: RecoveryState = {
      ...state,
      waitingFor: state.waitingFor.slice(0, LISTED),
      kept: state.kept.slice(0, LISTED),
      unassigned: state.unassigned.slice(0, LISTED),
    };
    const body = JSON.stringify(next);
    for (;;) {
      const text = await this.#store.facts.get(FACT);
      const known = parse(text);
      if (known?.epoch === state.epoch && !known.open) return;
      if (state.epoch !== this.#store.epoch.id || body === text) return;
      if (!(await this.#store.facts.swap(FACT, text, body))) continue;
      if (!state.open) this.#closedEpoch = state.epoch;
      return;
    }
  }

  /** An operator says that what nobody claims is nobody's. @throws Fault failed_precondition for another epoch */
  async confirm(epoch: string): Promise<void> {
    const state = await this.state();
    if (state.epoch !== epoch) {
      throw new Fault("failed_precondition", `the store is in epoch ${state.epoch} by now, not ${epoch}: look again`);
    }
    if (!state.open) return;
    await this.note({ ...state, open: false, ended: CONFIRMED });
  }
}

function parse(text: string | undefined): RecoveryState | undefined {
  return text === undefined ? undefined : (JSON.parse(text) as RecoveryState);
}
