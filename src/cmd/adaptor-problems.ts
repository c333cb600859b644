import { type Call, withDeadline } from "../base/call.ts";
import { adaptorText } from "./adaptor-client.ts";

/** The part of GET /v1/problems that `ps` shows; see src/adaptor/podvm/problems.ts. */
export interface AdaptorProblems {
  readonly recovery: { readonly epoch: string; readonly open: boolean; readonly kept: readonly string[] } & {
    readonly waitingFor: readonly string[];
    readonly unassigned: readonly string[];
    /** Absent: an adaptor of an earlier version. */
    readonly advice?: string;
  };
  readonly silentNodes: readonly { readonly nodeId: string; readonly reportedAt: string; readonly live: number }[];
  readonly stuckDeletes: readonly {
    readonly sandbox?: string;
    readonly instance?: string;
    readonly pod?: string;
    readonly node?: string;
    readonly since: string;
    readonly attempts: number;
    readonly lastError?: string;
  }[];
}

const ANSWER_MS = 2_000;

/** Undefined when no adaptor of this machine answers: a node can do without one, or have it elsewhere. */
export async function adaptorProblems(call: Call): Promise<AdaptorProblems | undefined> {
  try {
    return JSON.parse(await adaptorText("/v1/problems", withDeadline(ANSWER_MS, call))) as AdaptorProblems;
  } catch {
    return undefined; // `ps` is about the node; `kata-remote check` says what is wrong with the adaptor
  }
}

/** One line per problem, for people. */
export function problemLines(problems: AdaptorProblems | undefined): string[] {
  if (problems === undefined) return [];
  const { recovery, silentNodes, stuckDeletes } = problems;
  const lines = stuckDeletes.map(({ sandbox, instance, pod, node, since, attempts, lastError }) => {
    const what = [instance, pod, node, sandbox?.slice(0, 8)].filter((part) => part !== undefined).join(" ");
    const error = lastError === undefined ? "" : `: ${lastError}`;
    return `DELETING SINCE ${since}  ${what}  attempt ${attempts}${error}`;
  });
  for (const { nodeId, reportedAt, live } of silentNodes) {
    lines.push(`SILENT NODE  ${nodeId}  since ${reportedAt}  ${live} sandboxes`);
  }
  if (recovery.open && (recovery.kept.length > 0 || recovery.waitingFor.length > 0)) {
    const { kept, unassigned, epoch } = recovery;
    const advice = recovery.advice ?? `to end it: kata-remote adaptor confirm-recovery ${epoch}`;
    lines.push(
      `RECOVERY OPEN  ${kept.length} instances without a record are kept, ${unassigned.length} name no node; ${advice}`,
    );
  }
  return lines;
}
