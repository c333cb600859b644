import type { Call } from "../../base/call.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";

/** Whether a record answers for an instance: it names it, or a create call with its token may have made it. */
export function ownsInstance(record: SandboxRecord, instance: Pick<Instance, "id" | "tags">): boolean {
  if (record.phase === "gone") return false;
  return record.instance?.id === instance.id || record.intent?.createOperation === instance.tags.createOperation;
}

/** Everything that answers for instances, for passes over many of them. */
export interface Owners {
  owns(instance: Pick<Instance, "id" | "tags">): boolean;
}

/**
 * Reads who answers for instances now: records, and batches whose instances are still to be given to sandboxes. List the
 * instances before: what is made meanwhile then has an owner here.
 * @param atOnce reads all records in one step, which holds up others; else one that changes meanwhile may be missed
 */
export async function readOwners(store: AdaptorStore, atOnce = false): Promise<Owners> {
  const ids = new Set<string>();
  const tokens = new Set<string>();
  // The batches first: one that ends meanwhile has its instances in records, which are read later.
  const batches = await store.operations.list({ kind: "create-batch", states: ["queued", "running"] });
  for (const { id } of batches) tokens.add(id);
  for await (const records of atOnce ? [await store.sandboxes.list()] : store.sandboxes.scan()) {
    for (const { phase, instance, intent } of records) {
      if (phase === "gone") continue;
      if (instance !== undefined) ids.add(instance.id);
      if (intent !== undefined) tokens.add(intent.createOperation);
    }
  }
  return { owns: ({ id, tags }) => ids.has(id) || tokens.has(tags.createOperation) };
}

/**
 * Instances that are older than the store and that no record owns. The store that made them is lost, so it is unknown
 * whether pods run in them: only an operator may delete them.
 */
export async function instancesBeforeStore(
  deps: { readonly provider: Provider; readonly store: AdaptorStore; readonly cluster: string },
  call: Call,
): Promise<readonly Instance[]> {
  const instances = await deps.provider.listInstances(deps.cluster, call);
  const owners = await readOwners(deps.store);
  return instances.filter((i) => isFromBefore(i, deps.store.epoch) && !owners.owns(i));
}

export function isFromBefore(instance: Instance, epoch: AdaptorStore["epoch"]): boolean {
  return new Date(instance.tags.created) < epoch.createdAt;
}
