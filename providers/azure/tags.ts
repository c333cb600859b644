import type { SandboxId } from "../../src/base/ids.ts";
import type { Assignment, Instance, OwnerTags } from "../../src/provider/index.ts";

/** Of the keys that the provider sets. No slash in it: Azure refuses names with one. */
export const OWN_TAG_PREFIX = "kata-remote:";

export const NAME_TAG = "Name";
const CLUSTER_TAG = `${OWN_TAG_PREFIX}cluster`;
export const OWNER_TAG = `${OWN_TAG_PREFIX}owner`;
export const OPERATION_TAG = `${OWN_TAG_PREFIX}create-operation`;
const CREATED_TAG = `${OWN_TAG_PREFIX}created`;
/** The VM that a part belongs to: parts that outlive it are found by it. */
export const VM_TAG = `${OWN_TAG_PREFIX}vm`;
const SANDBOX_TAG = `${OWN_TAG_PREFIX}sandbox`;
const NODE_TAG = `${OWN_TAG_PREFIX}node`;
const OWNER: OwnerTags["owner"] = "kata-remote";

/** Characters. Source: Azure Resource Manager, "Use tags to organize your Azure resources", limitations. */
const MAX_VALUE = 256;

export type AzureTags = Readonly<Record<string, string>>;

/** Tags of a VM and of all its parts. A disk that Azure makes for a VM takes over the VM's. */
export function toAzureTags(vm: string, name: string, tags: OwnerTags, more: AzureTags): Record<string, string> {
  return {
    ...more,
    [NAME_TAG]: name,
    [CLUSTER_TAG]: tags.cluster,
    [OWNER_TAG]: tags.owner,
    [OPERATION_TAG]: tags.createOperation,
    [CREATED_TAG]: tags.created,
    [VM_TAG]: vm,
  };
}

/** What is put on a VM of a batch once it is known whose it is. */
export function assignmentTags({ name, sandboxId, nodeId }: Assignment): AzureTags {
  return { [NAME_TAG]: name, [SANDBOX_TAG]: sandboxId, [NODE_TAG]: nodeId.slice(0, MAX_VALUE) };
}

/** Whether it is kata-remote's, of whatever cluster. */
export function isOwned(tags: AzureTags | undefined): boolean {
  return tag(tags, OWNER_TAG) === OWNER;
}

export function clusterOf(tags: AzureTags | undefined): string | undefined {
  return isOwned(tags) ? tag(tags, CLUSTER_TAG) : undefined;
}

/** Azure keeps the case of names and compares without it; some of its services give them back in lower case. */
export function tag(tags: AzureTags | undefined, name: string): string | undefined {
  const exact = tags?.[name];
  if (exact !== undefined) return exact;
  const lower = name.toLowerCase();
  return Object.entries(tags ?? {}).find(([key]) => key.toLowerCase() === lower)?.[1];
}

/** What someone removed by hand is empty, or the time of the making: the VM stays ours by cluster and owner. */
export function fromAzureTags(
  tags: AzureTags | undefined,
  made: Date,
): Pick<Instance, "name" | "tags"> & { readonly assigned?: NonNullable<Instance["assigned"]> } {
  const [sandboxId, nodeId] = [tag(tags, SANDBOX_TAG), tag(tags, NODE_TAG)];
  const assigned = {
    ...(sandboxId === undefined ? {} : { sandboxId: sandboxId as SandboxId }),
    ...(nodeId === undefined ? {} : { nodeId }),
  };
  return {
    ...(Object.keys(assigned).length === 0 ? {} : { assigned }),
    name: tag(tags, NAME_TAG) ?? "",
    tags: {
      cluster: tag(tags, CLUSTER_TAG) ?? "",
      owner: OWNER,
      createOperation: tag(tags, OPERATION_TAG) ?? "",
      created: tag(tags, CREATED_TAG) ?? made.toISOString(),
    },
  };
}
