import type { AdaptorStore, OperationRecord } from "../store/index.ts";
import type { NodeSessions } from "./node-sessions.ts";
import { type Recovery, type RecoveryState, recoveryAdvice } from "./recovery.ts";

export interface StuckDelete {
  readonly operation: string;
  readonly sandbox?: string;
  readonly instance?: string;
  readonly pod?: string;
  readonly node?: string;
  /** RFC 3339 */
  readonly since: string;
  readonly attempts: number;
  readonly lastError?: string;
}

/** What needs an operator's eye. */
export interface ProblemReport {
  readonly recovery: RecoveryState & {
    /** What is to be done, for people. */
    readonly advice?: string;
  };
  readonly silentNodes: readonly { readonly nodeId: string; readonly reportedAt: string; readonly live: number }[];
  readonly stuckDeletes: readonly StuckDelete[];
}

export interface ProblemsDeps {
  readonly store: AdaptorStore;
  readonly sessions: NodeSessions;
  readonly recovery: Recovery;
  readonly now: () => Date;
  readonly silentMs: number;
  readonly stuckDeleteMs: number;
}

/** Whether it deletes something, and has for longer than that takes. */
export function isStuckDelete({ kind, submittedAt }: OperationRecord, now: Date, stuckMs: number): boolean {
  const deletes = kind === "stop-vm" || kind === "collect-instance";
  return deletes && now.getTime() - Date.parse(submittedAt) > stuckMs;
}

/** Looks at the store for what needs attention; for REST, metrics and `kata-remote ps`. */
export class Problems {
  readonly #deps: ProblemsDeps;

  constructor(deps: ProblemsDeps) {
    this.#deps = deps;
  }

  async look(): Promise<ProblemReport> {
    const { store, sessions, recovery, now, silentMs, stuckDeleteMs } = this.#deps;
    const silentNodes = (await sessions.list())
      .filter((s) => s.forgotten !== true && now().getTime() - Date.parse(s.reportedAt) > silentMs)
      .map(({ nodeId, reportedAt, live }) => ({ nodeId, reportedAt, live }));
    const active = await store.operations.list({ states: ["queued", "running"] });
    const stuck = active.filter((o) => isStuckDelete(o, now(), stuckDeleteMs));
    const stuckDeletes = await Promise.all(stuck.map((o) => this.#describe(o)));
    const state = await recovery.state();
    const advice = recoveryAdvice(state);
    return { recovery: { ...state, ...(advice === undefined ? {} : { advice }) }, silentNodes, stuckDeletes };
  }

  async #describe(operation: OperationRecord): Promise<StuckDelete> {
    const { id, kind, subject, submittedAt, attempt, fault } = operation;
    const common = {
      ...{ operation: id, since: submittedAt, attempts: attempt },
      ...(fault === undefined ? {} : { lastError: fault.message }),
    };
    if (kind !== "stop-vm") return { ...common, instance: subject };
    const record = await this.#deps.store.sandboxes.get(subject as Parameters<AdaptorStore["sandboxes"]["get"]>[0]);
    return {
      ...{ ...common, sandbox: subject },
      ...(record?.instance === undefined ? {} : { instance: record.instance.id }),
      ...(record === undefined ? {} : { pod: `${record.pod.namespace}/${record.pod.name}`, node: record.nodeId }),
    };
  }
}
