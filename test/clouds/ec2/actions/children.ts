import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { type NetworkInterface, renderTags, type StateName, type StoredInstance, type Volume } from "../instance.ts";
import { applyFilters, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import { type Action, refuseMissing } from "./action.ts";
import { readTags } from "./tag-request.ts";

/** A volume or interface with the instance that it came with; one that outlives the instance is attached to nothing. */
interface Child<T> {
  readonly child: T;
  readonly instance: StoredInstance;
  readonly state: StateName | undefined;
}

function attached(c: Child<unknown>): boolean {
  return c.state !== undefined && c.state !== "terminated";
}

/** Those of instances that exist: gone are the ones that end with their instance. */
export function children<T extends { readonly deleteOnTermination: boolean }>(
  account: Ec2Account,
  pick: (instance: StoredInstance) => readonly T[],
): Child<T>[] {
  return [...account.instances.values()]
    .flatMap((instance) => pick(instance).map((child) => ({ child, instance, state: account.state(instance) })))
    .filter((c) => attached(c) || !c.child.deleteOnTermination);
}

/** Every volume or interface, whether an instance has it or not. */
interface Part<T> {
  readonly part: T;
  readonly owner: StoredInstance | undefined;
}

function parts<T>(ofInstances: readonly Child<T>[], loose: Iterable<T>): Part<T>[] {
  return [
    ...ofInstances.map((c) => ({ part: c.child, owner: attached(c) ? c.instance : undefined })),
    ...[...loose].map((part) => ({ part, owner: undefined })),
  ];
}

function allVolumes(account: Ec2Account): Part<Volume>[] {
  return parts(
    children(account, (i) => i.volumes),
    account.volumes.values(),
  );
}

function allInterfaces(account: Ec2Account): Part<NetworkInterface>[] {
  return parts(
    children(account, (i) => [i.networkInterface, ...i.moreInterfaces]),
    account.interfaces.values(),
  );
}

export const describeVolumes: Action = ({ account, params }) => {
  const ids = params.texts("VolumeId");
  const all = allVolumes(account);
  refuseMissing(ids, new Set(all.map((v) => v.part.id)), { code: "InvalidVolume", noun: "volume", prefix: "vol" });
  const asked = all.filter((v) => ids.length === 0 || ids.includes(v.part.id));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      "volume-id": (v) => [v.part.id],
      status: (v) => [v.owner === undefined ? "available" : "in-use"],
      "attachment.instance-id": (v) => (v.owner === undefined ? [] : [v.owner.id]),
      "availability-zone": (v) => [v.part.zone],
      encrypted: (v) => [String(v.part.encrypted)],
    },
    (v) => v.part.tags,
  );
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { volumeSet: items.map(renderVolume), nextToken };
};

function renderVolume({ part: v, owner }: Part<Volume>): XmlObject {
  const attachment = {
    ...{ volumeId: v.id, instanceId: owner?.id, device: v.device, status: "attached" },
    ...{ attachTime: new Date(v.attachedAt), deleteOnTermination: v.deleteOnTermination },
  };
  return {
    ...{ volumeId: v.id, size: v.sizeGiB, volumeType: v.type, encrypted: v.encrypted, iops: v.iops },
    ...{ kmsKeyId: v.kmsKeyId, availabilityZone: v.zone, createTime: new Date(v.createdAt), throughput: v.throughput },
    ...{ snapshotId: v.snapshotId ?? "", status: owner === undefined ? "available" : "in-use" },
    attachmentSet: owner === undefined ? [] : [attachment],
    tagSet: renderTags(v.tags),
  };
}

export const describeNetworkInterfaces: Action = ({ account, params }) => {
  const ids = params.texts("NetworkInterfaceId");
  const all = allInterfaces(account);
  const known = new Set(all.map((n) => n.part.id));
  refuseMissing(ids, known, { code: "InvalidNetworkInterfaceID", noun: "networkInterface", prefix: "eni" });
  const asked = all.filter((n) => ids.length === 0 || ids.includes(n.part.id));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      "network-interface-id": (n) => [n.part.id],
      status: (n) => [n.owner === undefined ? "available" : "in-use"],
      "attachment.instance-id": (n) => (n.owner === undefined ? [] : [n.owner.id]),
      "subnet-id": (n) => [n.part.subnet.id],
    },
    (n) => n.part.tags,
  );
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { networkInterfaceSet: items.map((n) => renderInterface(account, n)), nextToken };
};

function renderInterface(account: Ec2Account, { part: n, owner }: Part<NetworkInterface>): XmlObject {
  const { deviceIndex, deleteOnTermination } = n;
  return {
    ...{ networkInterfaceId: n.id, subnetId: n.subnet.id, vpcId: n.subnet.vpcId, description: n.description },
    ...{ ownerId: account.ownerId, privateIpAddress: n.address, availabilityZone: n.subnet.zone },
    status: owner === undefined ? "available" : "in-use",
    groupSet: n.groups.map((groupId) => ({ groupId, groupName: groupId })),
    attachment:
      owner === undefined ? undefined : { instanceId: owner.id, deviceIndex, deleteOnTermination, status: "attached" },
    tagSet: renderTags(n.tags),
  };
}

/** Every resource that can have tags, by id. */
function taggable(account: Ec2Account): Map<string, { readonly kind: string; readonly tags: Map<string, string> }> {
  const all = new Map<string, { readonly kind: string; readonly tags: Map<string, string> }>();
  for (const instance of account.instances.values()) {
    if (account.state(instance) !== undefined) all.set(instance.id, { kind: "instance", tags: instance.tags });
  }
  for (const { part } of allVolumes(account)) all.set(part.id, { kind: "volume", tags: part.tags });
  for (const { part } of allInterfaces(account)) all.set(part.id, { kind: "network-interface", tags: part.tags });
  for (const s of account.snapshots.all.values()) all.set(s.id, { kind: "snapshot", tags: s.tags });
  const others = [
    ...account.subnets.map((s) => ["subnet", s.id] as const),
    ...account.groups.map((g) => ["security-group", g.id] as const),
    ...account.images.map((i) => ["image", i.id] as const),
  ];
  for (const [kind, id] of others) {
    const tags = account.otherTags.get(id) ?? new Map<string, string>();
    account.otherTags.set(id, tags);
    all.set(id, { kind, tags });
  }
  return all;
}

export const createTags: Action = ({ account, params, endDryRun }) => {
  const ids = params.texts("ResourceId");
  const tags = readTags(params);
  if (ids.length === 0 || tags.size === 0) {
    throw new ApiError("MissingParameter", "The request must contain the parameters ResourceId and Tag");
  }
  const own = ids.map((id) => account.instances.get(id));
  // Most often instances only: the whole account is not looked through for them.
  const all = own.every((i) => i !== undefined && account.state(i) !== undefined)
    ? new Map(own.map((i) => [i?.id ?? "", { tags: i?.tags ?? new Map<string, string>() }]))
    : taggable(account);
  const missing = ids.find((id) => !all.has(id));
  if (missing !== undefined) throw new ApiError("InvalidID", `The ID '${missing}' is not valid`);
  endDryRun();
  for (const id of ids) for (const [key, value] of tags) all.get(id)?.tags.set(key, value);
  return { return: true };
};

export const deleteTags: Action = ({ account, params, endDryRun }) => {
  const ids = params.texts("ResourceId");
  const all = taggable(account);
  const missing = ids.find((id) => !all.has(id));
  if (missing !== undefined) throw new ApiError("InvalidID", `The ID '${missing}' is not valid`);
  const tags = params.list("Tag").map((tag) => ({ key: tag.need("Key"), value: tag.text("Value") }));
  endDryRun();
  for (const id of ids) {
    const own = all.get(id)?.tags;
    // Without a list all go; with a value only the tag that has it.
    for (const { key, value } of tags.length === 0
      ? [...(own?.keys() ?? [])].map((k) => ({ key: k, value: undefined }))
      : tags)
      if (value === undefined || own?.get(key) === value) own?.delete(key);
  }
  return { return: true };
};

export const describeTags: Action = ({ account, params }) => {
  const all = [...taggable(account)].flatMap(([resourceId, { kind, tags }]) =>
    [...tags].map(([key, value]) => ({ resourceId, resourceType: kind, key, value })),
  );
  const matching = applyFilters(all, params.list("Filter"), {
    ...{ key: (t) => [t.key], value: (t) => [t.value], "resource-id": (t) => [t.resourceId] },
    "resource-type": (t) => [t.resourceType],
  });
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { tagSet: items.map((t) => ({ ...t })), nextToken };
};
