import { Fault } from "../../base/fault.ts";
import type { AdaptorStore, ReportMark } from "../store/index.ts";

/** What is remembered of a node between its reports. */
export interface NodeSession {
  readonly nodeId: string;
  readonly bootId: string;
  /** Earlier boots, newest first: a report of one of them comes from a second machine. */
  readonly formerBoots: readonly string[];
  /** Decimal; "0" for an old node, whose reports have no order. */
  readonly session: string;
  readonly sequence: number;
  /** RFC 3339 */
  readonly reportedAt: string;
  /** Id of the store's epoch in which it reported last. */
  readonly epoch: string;
  readonly live: number;
  /** An operator said that it does not come back, or all that it had was stopped. A new report takes that back. */
  readonly forgotten?: boolean;
}

export interface SessionsDeps {
  readonly store: AdaptorStore;
  readonly now: () => Date;
  /** A node that was heard of within this time has not been rebooted: another boot id is a second machine, ms. */
  readonly rebootQuietMs: number;
}

export interface Accepted {
  /** An earlier report arrived later, or a second time: it must not act. */
  readonly stale: boolean;
  readonly rebooted: boolean;
}

const PREFIX = "node:";
const FORMER_BOOTS = 4;

/** Orders the reports of each node. Kept as facts in the store, so that any replica may be told. */
export class NodeSessions {
  readonly #deps: SessionsDeps;

  constructor(deps: SessionsDeps) {
    this.#deps = deps;
  }

  async get(nodeId: string): Promise<NodeSession | undefined> {
    return parse(await this.#deps.store.facts.get(PREFIX + nodeId));
  }

  async list(): Promise<readonly NodeSession[]> {
    const facts = await this.#deps.store.facts.list(PREFIX);
    return [...facts.values()].map(parse).filter((s) => s !== undefined);
  }

  /**
   * Notes a report, if it is newer than the last one.
   * @throws Fault failed_precondition when another machine has this id
   */
  async accept(nodeId: string, mark: ReportMark, live: number): Promise<Accepted> {
    const { store, now } = this.#deps;
    for (;;) {
      const text = await store.facts.get(PREFIX + nodeId);
      const before = parse(text);
      const sameBoot = before?.bootId === mark.bootId;
      if (before !== undefined && sameBoot && !isNewer(mark, before)) return { stale: true, rebooted: false };
      if (before !== undefined && !sameBoot && before.forgotten !== true) this.#refuseSecondMachine(before, mark);
      const former = sameBoot ? before.formerBoots : [before?.bootId ?? [], before?.formerBoots ?? []].flat();
      const next: NodeSession = {
        ...{ nodeId, bootId: mark.bootId, session: mark.session, sequence: mark.sequence, live },
        ...{ formerBoots: former.slice(0, FORMER_BOOTS), reportedAt: now().toISOString(), epoch: store.epoch.id },
      };
      if (await store.facts.swap(PREFIX + nodeId, text, JSON.stringify(next))) {
        return { stale: false, rebooted: before !== undefined && !sameBoot };
      }
    }
  }

  /** A sandbox is made only by the machine that reports: else the next report would have it stopped. @throws Fault */
  async checkBoot(nodeId: string, bootId: string): Promise<void> {
    const known = bootId === "" ? undefined : await this.get(nodeId);
    if (known === undefined || known.bootId === bootId || known.forgotten === true) return;
    throw new Fault(
      "failed_precondition",
      `node ${nodeId} was last heard of with boot id ${known.bootId}, this call has ${bootId}: its report (SyncNode) comes first`,
      { node: nodeId },
      { retryable: true },
    );
  }

  /** Nobody waits for the node any more. @returns false when it is unknown */
  async forget(nodeId: string): Promise<boolean> {
    for (;;) {
      const text = await this.#deps.store.facts.get(PREFIX + nodeId);
      const known = parse(text);
      if (known === undefined) return false;
      const next = JSON.stringify({ ...known, forgotten: true });
      if (await this.#deps.store.facts.swap(PREFIX + nodeId, text, next)) return true;
    }
  }

  /** Removes what is remembered of it, unless it reported meanwhile. */
  async remove(session: NodeSession): Promise<boolean> {
    return this.#deps.store.facts.swap(PREFIX + session.nodeId, JSON.stringify(session), undefined);
  }

  #refuseSecondMachine(before: NodeSession, mark: ReportMark): void {
    const { now, rebootQuietMs } = this.#deps;
    const quietMs = now().getTime() - Date.parse(before.reportedAt);
    const former = before.formerBoots.includes(mark.bootId);
    if (!former && quietMs >= rebootQuietMs) return;
    throw new Fault(
      "failed_precondition",
      `node id ${before.nodeId} is in use by another machine (boot ${before.bootId}, heard of ${Math.round(quietMs / 1000)} s ago; this one has boot ${mark.bootId}): ` +
        `remove the file node-id in the node daemon's stateDir on one of them. A node that was just rebooted is accepted ${Math.ceil(rebootQuietMs / 1000)} s after its last report`,
      { node: before.nodeId },
      { retryable: true },
    );
  }
}

/** Whether a report may say something of what was made after `mark`: it was sent later, or by a later boot. */
export function saysNothingOf(report: ReportMark, madeAfter: ReportMark | undefined): boolean {
  return madeAfter !== undefined && madeAfter.bootId === report.bootId && !isNewer(report, madeAfter);
}

function isNewer(mark: ReportMark, than: Pick<ReportMark, "session" | "sequence">): boolean {
  if (mark.session === "0") return true;
  const [a, b] = [BigInt(mark.session), BigInt(than.session)];
  return a > b || (a === b && mark.sequence > than.sequence);
}

function parse(text: string | undefined): NodeSession | undefined {
  return text === undefined ? undefined : (JSON.parse(text) as NodeSession);
}
