import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { SandboxRecord } from "../store/index.ts";
import { amend } from "./amend.ts";
import type { PodVmDeps } from "./deps.ts";
import type { LiveSandbox, NodeReport, PendingStop, SyncAnswer } from "./node-report.ts";
import { saysNothingOf } from "./node-sessions.ts";
import { rebuildRecord } from "./rebuild.ts";

/** Stops a record's sandbox, durably. */
export type Stop = (record: SandboxRecord, reason: string) => Promise<void>;

/**
 * Compares what a node says lives with what is recorded for it, by the rules of README.md. What it does not name is
 * stopped, everything after a reboot of the node; what it names but has no VM here is lost.
 * @throws Fault failed_precondition when another machine has this node's id
 */
export async function syncNode(deps: PodVmDeps, report: NodeReport, stop: Stop, call: Call): Promise<SyncAnswer> {
  const { nodeId, mark } = report;
  if (mark.bootId === "") throw new Fault("invalid_argument", "a node's report lacks its boot id", { node: nodeId });
  const arrived = deps.now();
  const { stale, rebooted } = await deps.sessions.accept(nodeId, mark, report.live.length);
  if (stale) return { stopping: [], lost: [], stale, ...(await standing(deps)) };
  await checkLineage(deps, report);
  if (!rebooted) {
    const known = new Map((await deps.store.sandboxes.list({ nodeId })).map((r) => [r.id, r]));
    for (const live of report.details) if (lacks(known.get(live.id), live)) await restore(deps, nodeId, live, call);
  }
  for (const pending of report.pendingStops) await stopPending(deps, nodeId, pending, stop, call);

  const recovering = await deps.recovery.isOpen();
  const records = await deps.store.sandboxes.list({ nodeId });
  const live = new Set(report.live);
  const reason = rebooted ? "its node was rebooted" : "its node does not know it any more";
  const surplus = records.filter((r) => {
    if (r.phase === "gone" || (!rebooted && live.has(r.id))) return false;
    // This report says nothing of what its node made after it, nor of what was made while it was held up.
    if (saysNothingOf(mark, r.madeAfter) || new Date(r.createdAt) > arrived) return false;
    // A record that was set back says little: it waits until the recovery is over.
    return !(recovering && isFromBeforeEpoch(deps, r));
  });
  await Promise.all(surplus.filter((r) => r.phase !== "stopping").map((r) => stop(r, reason)));
  const kept = new Map(records.filter((r) => !surplus.includes(r)).map((r) => [r.id, r]));
  const lost = rebooted ? [] : report.live.filter((id) => isLost(id, kept.get(id), recovering));
  if (rebooted || surplus.length > 0 || lost.length > 0) {
    const { log } = deps;
    log.info({ node: nodeId, rebooted, stopping: surplus.length, lost: lost.length }, "node reported its sandboxes");
  }
  return { stopping: surplus.map((r) => r.id), lost, stale, ...(await standing(deps)) };
}

/** The node remembers more of the store than the store does: it was set back. */
async function checkLineage(deps: PodVmDeps, { nodeId, store: told }: NodeReport): Promise<void> {
  const { position } = deps.store;
  if (told.epoch !== position.epoch || told.seq <= position.seq) return;
  deps.log.error({ node: nodeId, told: told.seq, ...position }, "the store was set back: a node was told of more");
  await deps.store.beginEpoch(position.epoch);
}

/** Whether the node may know more of a sandbox than its record says: seldom, and each report names all of them. */
function lacks(record: SandboxRecord | undefined, live: LiveSandbox): boolean {
  if (record === undefined || record.phase === "prepared" || record.phase === "creating") return true;
  if (record.guestKey === undefined && live.guestKey !== undefined) return true;
  return record.phase === "booting" && live.ready;
}

async function restore(deps: PodVmDeps, nodeId: string, live: LiveSandbox, call: Call): Promise<void> {
  const record = await deps.store.sandboxes.get(live.id);
  if (record?.nodeId !== undefined && record.nodeId !== nodeId) return;
  if (record?.phase === "booting" || record?.phase === "ready") return catchUp(deps, live);
  const ready = live.ready || live.guestKey !== undefined;
  await rebuildRecord(deps, nodeId, live, ready || record !== undefined ? "ready" : "booting", call);
}

/** What a record that was set back lacks, or whose ReportReady was lost. A key that it has stays. */
async function catchUp({ store }: PodVmDeps, live: LiveSandbox): Promise<void> {
  await amend(store.sandboxes, live.id, ({ phase, instance, guestKey }) => {
    if (instance?.id !== live.instanceId || (phase !== "booting" && phase !== "ready")) return undefined;
    if (guestKey !== undefined && guestKey.fingerprint !== live.guestKey?.fingerprint) return undefined;
    const pins = guestKey === undefined && live.guestKey !== undefined;
    const becomesReady = phase === "booting" && live.ready;
    if (!pins && !becomesReady) return undefined;
    return { ...(pins ? { guestKey: live.guestKey } : {}), ...(becomesReady ? { phase: "ready" } : {}) };
  });
}

async function stopPending(
  deps: PodVmDeps,
  nodeId: string,
  pending: PendingStop,
  stop: Stop,
  call: Call,
): Promise<void> {
  const record = await recordToStop(deps, nodeId, pending, call);
  if (record?.nodeId === nodeId) await stop(record, pending.reason);
}

/** The record of a sandbox that is to be stopped, rebuilt when the store lost it and its instance is known. */
export async function recordToStop(
  deps: PodVmDeps,
  nodeId: string,
  { id, instanceId }: PendingStop,
  call: Call,
): Promise<SandboxRecord | undefined> {
  const known = await deps.store.sandboxes.get(id);
  if (instanceId === undefined || (known !== undefined && known.instance !== undefined)) return known;
  if (known !== undefined && known.phase !== "prepared" && known.phase !== "creating") return known;
  const nobody = { namespace: "", name: "", uid: "" };
  const live: LiveSandbox = {
    ...{ id, instanceId, addresses: [], port: 0, ready: false },
    ...{ pod: nobody, containerd: { namespace: "", id: "" } },
  };
  return rebuildRecord(deps, nodeId, live, "stopping", call);
}

function isFromBeforeEpoch(deps: PodVmDeps, record: SandboxRecord): boolean {
  return new Date(record.createdAt) < deps.store.epoch.createdAt;
}

/** A prepared sandbox has no VM yet, and that is as it should be; a store that lost records knows too little to say. */
function isLost(id: SandboxId, record: SandboxRecord | undefined, recovering: boolean): boolean {
  if (record === undefined) return !recovering;
  return record.id === id && ["gone", "lost", "stopping"].includes(record.phase);
}

async function standing(deps: PodVmDeps): Promise<Pick<SyncAnswer, "store" | "recovering">> {
  return { store: deps.store.position, recovering: await deps.recovery.isOpen() };
}
