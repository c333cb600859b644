import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { SandboxRecord } from "../store/index.ts";
import type { PodVmDeps } from "./deps.ts";
import { instancesBeforeStore } from "./ownership.ts";

export interface NodeReport {
  readonly nodeId: string;
  /** Kernel boot id: with a new one every pod of the node is gone. */
  readonly bootId: string;
  readonly live: readonly SandboxId[];
}

export interface SyncAnswer {
  readonly stopping: readonly SandboxId[];
  readonly lost: readonly SandboxId[];
}

/**
 * Compares what a node says lives with what is recorded for it. What it does not name is stopped, everything after a
 * reboot of the node; what it names but has no VM here is lost.
 */
export async function syncNode(
  deps: PodVmDeps,
  report: NodeReport,
  stop: (record: SandboxRecord, reason: string) => Promise<void>,
  call: Call,
): Promise<SyncAnswer> {
  if (report.bootId === "")
    throw new Fault("invalid_argument", "a node's report lacks its boot id", { node: report.nodeId });
  const arrived = deps.now();
  const bootBefore = await deps.store.nodes.report(report.nodeId, report.bootId);
  const rebooted = bootBefore !== undefined && bootBefore !== report.bootId;
  const live = new Set(report.live);
  const records = await deps.store.sandboxes.list({ nodeId: report.nodeId });
  const reason = rebooted ? "its node was rebooted" : "its node does not know it any more";
  // A node makes no sandbox while its report is on its way, unless it has given the report up: should this one have been
  // held up for that long (by the store), it says nothing of what was made since.
  const surplus = records.filter(
    (r) => r.phase !== "gone" && (rebooted || !live.has(r.id)) && !(new Date(r.createdAt) > arrived),
  );
  await Promise.all(surplus.filter((r) => r.phase !== "stopping").map((r) => stop(r, reason)));
  const kept = new Map(records.filter((r) => !surplus.includes(r)).map((r) => [r.id, r]));
  const lost = rebooted ? [] : await withoutVm(deps, report.live, kept, call);
  if (rebooted || surplus.length > 0 || lost.length > 0) {
    deps.log.info(
      { node: report.nodeId, rebooted, stopping: surplus.length, lost: lost.length },
      "node reported its sandboxes",
    );
  }
  return { stopping: surplus.map((r) => r.id), lost };
}

async function withoutVm(
  deps: PodVmDeps,
  live: readonly SandboxId[],
  known: ReadonlyMap<SandboxId, SandboxRecord>,
  call: Call,
): Promise<readonly SandboxId[]> {
  const lost = live.filter((id) => !hasVm(known.get(id)));
  if (lost.every((id) => known.has(id))) return lost;
  // A store that came back empty knows no sandbox, and would take every running pod for lost.
  if ((await instancesBeforeStore(deps, call)).length === 0) return lost;
  deps.log.error(
    { sandboxes: lost.filter((id) => !known.has(id)) },
    "sandboxes from before this store are not reported as lost",
  );
  return lost.filter((id) => known.has(id));
}

/** A prepared sandbox has no VM yet, and that is as it should be. */
function hasVm(record: SandboxRecord | undefined): boolean {
  return record !== undefined && !["gone", "lost", "stopping"].includes(record.phase);
}
