import type { Tag } from "@aws-sdk/client-ec2";
import type { SandboxId } from "../../src/base/ids.ts";
import type { Assignment, Instance, OwnerTags } from "../../src/provider/index.ts";

/** Of the keys that the provider sets. No slash in it: the instance metadata service refuses tags with one. */
export const OWN_TAG_PREFIX = "kata-remote:";

export const CLUSTER_TAG = `${OWN_TAG_PREFIX}cluster`;
export const OWNER_TAG = `${OWN_TAG_PREFIX}owner`;
export const OPERATION_TAG = `${OWN_TAG_PREFIX}create-operation`;
export const CREATED_TAG = `${OWN_TAG_PREFIX}created`;
const SANDBOX_TAG = `${OWN_TAG_PREFIX}sandbox`;
const NODE_TAG = `${OWN_TAG_PREFIX}node`;
export const OWNER: OwnerTags["owner"] = "kata-remote";

/** Characters. Source: EC2 user guide, "Tag restrictions". */
const MAX_VALUE = 256;

export function toEc2Tags(name: string, tags: OwnerTags, more: Readonly<Record<string, string>>): Tag[] {
  const own = {
    Name: name,
    [CLUSTER_TAG]: tags.cluster,
    [OWNER_TAG]: tags.owner,
    [OPERATION_TAG]: tags.createOperation,
    [CREATED_TAG]: tags.created,
  };
  return Object.entries({ ...more, ...own }).map(([Key, Value]) => ({ Key, Value }));
}

/** Put on an instance of a batch once it is known whose it is. */
export function assignmentTags({ name, sandboxId, nodeId }: Assignment): Tag[] {
  return Object.entries({ Name: name, [SANDBOX_TAG]: sandboxId, [NODE_TAG]: nodeId.slice(0, MAX_VALUE) }).map(
    ([Key, Value]) => ({ Key, Value }),
  );
}

/** What someone removed by hand is empty, or the launch time: the instance stays ours by cluster and owner. */
export function fromEc2Tags(
  tags: readonly Tag[],
  launched: Date,
): Pick<Instance, "name" | "tags"> & { readonly assigned?: NonNullable<Instance["assigned"]> } {
  const value = (key: string): string | undefined => tags.find((t) => t.Key === key)?.Value;
  const [sandboxId, nodeId] = [value(SANDBOX_TAG), value(NODE_TAG)];
  const assigned = {
    ...(sandboxId === undefined ? {} : { sandboxId: sandboxId as SandboxId }),
    ...(nodeId === undefined ? {} : { nodeId }),
  };
  return {
    ...(Object.keys(assigned).length === 0 ? {} : { assigned }),
    name: value("Name") ?? "",
    tags: {
      cluster: value(CLUSTER_TAG) ?? "",
      owner: OWNER,
      createOperation: value(OPERATION_TAG) ?? "",
      created: value(CREATED_TAG) ?? launched.toISOString(),
    },
  };
}
