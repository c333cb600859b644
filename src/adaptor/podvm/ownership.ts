import type { Call } from "../../base/call.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";

/** Whether a record answers for an instance: it names it, or a create call with its token may have made it. */
export function ownsInstance(record: SandboxRecord, instance: Pick<Instance, "id" | "tags">): boolean {
  if (record.phase === "gone") return false;
  return record.instance?.id === instance.id || record.intent?.createOperation === instance.tags.createOperation;
}

/**
 * Instances that are older than the store and that no record owns. The store that made them is lost, so it is unknown
 * whether pods run in them: only an operator may delete them.
 */
export async function instancesBeforeStore(
  deps: { readonly provider: Provider; readonly store: AdaptorStore; readonly cluster: string },
  call: Call,
): Promise<readonly Instance[]> {
  const [instances, records] = await Promise.all([
    deps.provider.listInstances(deps.cluster, call),
    deps.store.sandboxes.list(),
  ]);
  return instances.filter((i) => isFromBefore(i, deps.store.epoch) && !records.some((r) => ownsInstance(r, i)));
}

export function isFromBefore(instance: Instance, epoch: AdaptorStore["epoch"]): boolean {
  return new Date(instance.tags.created) < epoch.createdAt;
}
