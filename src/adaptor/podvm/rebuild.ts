import type { Call } from "../../base/call.ts";
import type { SandboxId } from "../../base/ids.ts";
import { GUEST_PORT } from "../../guestwire/index.ts";
import type { Instance } from "../../provider/index.ts";
import type { AcceptedInstance, SandboxChange, SandboxRecord } from "../store/index.ts";
import { amend } from "./amend.ts";
import type { PodVmDeps } from "./deps.ts";
import type { LiveSandbox } from "./node-report.ts";
import { isFromBefore } from "./ownership.ts";

type Deps = Pick<PodVmDeps, "store" | "provider" | "cluster" | "now" | "log">;

/**
 * Writes again what the store has lost of a sandbox, or brings a record up to date that was set back. The provider says
 * whether the instance exists and whose cluster it is of, the node says the rest. Only for instances that are older than
 * the store's epoch, and that no other sandbox and no other node has.
 * @param phase `ready` (or booting) for a sandbox that lives, `stopping` for one that its node wants stopped
 * @returns the record, undefined when there is nothing to write it from
 */
export async function rebuildRecord(
  deps: Deps,
  nodeId: string,
  live: LiveSandbox,
  phase: "ready" | "booting" | "stopping",
  call: Call,
): Promise<SandboxRecord | undefined> {
  const { store, provider, cluster, now, log } = deps;
  if (live.instanceId === undefined) return undefined;
  const known = await store.sandboxes.get(live.id);
  if (known !== undefined && !isBehind(known, store.epoch.createdAt)) return known;
  const instance = await provider.getInstance(live.instanceId, call);
  if (instance === undefined || instance.tags.cluster !== cluster || !isFromBefore(instance, store.epoch)) return known;
  if (instance.state === "deleting" || instance.state === "failed") return known;
  const refusal = await whyNot(deps, nodeId, live.id, instance, known);
  if (refusal !== undefined) {
    log.error({ sandbox: live.id, instance: instance.id, node: nodeId, refusal }, "a lost record is not rebuilt");
    return known;
  }
  const change = describe(live, instance, phase, now());
  if (known !== undefined) {
    return amend(store.sandboxes, live.id, (r) => (isBehind(r, store.epoch.createdAt) ? change : undefined));
  }
  const { id, pod, containerd } = live;
  const createdAt = instance.tags.created;
  const request = { vcpus: 0, memoryMiB: 0, gpus: 0 };
  const record = await store.sandboxes.insert({ ...change, id, nodeId, pod, containerd, request, createdAt });
  log.warn({ sandbox: id, instance: instance.id, node: nodeId, phase }, "lost record rebuilt from the node's report");
  return record;
}

/** A record from before the epoch that does not know of the instance that its node has. */
function isBehind(record: SandboxRecord, epoch: Date): boolean {
  const early = record.phase === "prepared" || record.phase === "creating";
  return early && record.instance === undefined && new Date(record.createdAt) < epoch;
}

async function whyNot(
  { store }: Deps,
  nodeId: string,
  id: SandboxId,
  instance: Instance,
  known: SandboxRecord | undefined,
): Promise<string | undefined> {
  if (known !== undefined && known.nodeId !== nodeId) return `the sandbox is node ${known.nodeId}'s`;
  const { assigned } = instance;
  if (assigned?.nodeId !== undefined && assigned.nodeId !== nodeId) return `its tags say node ${assigned.nodeId}`;
  if (assigned?.sandboxId !== undefined && assigned.sandboxId !== id) return `its tags say ${assigned.sandboxId}`;
  for await (const part of store.sandboxes.scan()) {
    const owner = part.find((r) => r.id !== id && r.instance?.id === instance.id);
    if (owner !== undefined) return `it is sandbox ${owner.id}'s`;
  }
  return undefined;
}

function describe(live: LiveSandbox, instance: Instance, phase: SandboxRecord["phase"], now: Date) {
  const { createOperation, created } = instance.tags;
  const accepted: AcceptedInstance = {
    id: instance.id,
    addresses: instance.addresses.length > 0 ? instance.addresses : live.addresses,
    port: instance.tunnelPort ?? (live.port > 0 ? live.port : GUEST_PORT),
  };
  return {
    phase,
    intent: {
      createOperation: createOperation as NonNullable<SandboxRecord["intent"]>["createOperation"],
      name: instance.name,
      created,
    },
    instance: accepted,
    rebuiltAt: now.toISOString(),
    ...(live.guestKey === undefined ? {} : { guestKey: live.guestKey }),
    ...(phase === "stopping" ? { stopReason: "its node had it stopped" } : {}),
  } satisfies SandboxChange;
}
