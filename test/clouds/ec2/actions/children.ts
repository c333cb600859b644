import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { renderTags, type StateName, type StoredInstance, type Volume } from "../instance.ts";
import { applyFilters, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import { type Action, refuseMissing } from "./action.ts";
import { readTags } from "./launch-request.ts";

/** A volume or interface with the instance that it came with; one that outlives the instance is attached to nothing. */
interface Child<T> {
  readonly child: T;
  readonly instance: StoredInstance;
  readonly state: StateName | undefined;
}

function attached(c: Child<unknown>): boolean {
  return c.state !== undefined && c.state !== "terminated";
}

/** Those that exist: gone are the ones that end with their instance. */
function children<T extends { readonly deleteOnTermination: boolean }>(
  account: Ec2Account,
  pick: (instance: StoredInstance) => readonly T[],
): Child<T>[] {
  return [...account.instances.values()]
    .flatMap((instance) => pick(instance).map((child) => ({ child, instance, state: account.state(instance) })))
    .filter((c) => attached(c) || !c.child.deleteOnTermination);
}

export const describeVolumes: Action = ({ account, params }) => {
  const ids = params.texts("VolumeId");
  const all = children(account, (i) => i.volumes);
  refuseMissing(ids, new Set(all.map((v) => v.child.id)), { code: "InvalidVolume", noun: "volume", prefix: "vol" });
  const asked = all.filter((v) => ids.length === 0 || ids.includes(v.child.id));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      "volume-id": (v) => [v.child.id],
      status: (v) => [attached(v) ? "in-use" : "available"],
      "attachment.instance-id": (v) => (attached(v) ? [v.instance.id] : []),
      encrypted: (v) => [String(v.child.encrypted)],
    },
    (v) => v.child.tags,
  );
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { volumeSet: items.map(renderVolume), nextToken };
};

function renderVolume(v: Child<Volume>): XmlObject {
  const { child, instance } = v;
  const attachTime = new Date(instance.launchedAt);
  const attachment = {
    ...{ volumeId: child.id, instanceId: instance.id, device: child.device, status: "attached", attachTime },
    deleteOnTermination: child.deleteOnTermination,
  };
  return {
    ...{ volumeId: child.id, size: child.sizeGiB, volumeType: child.type, encrypted: child.encrypted },
    ...{ kmsKeyId: child.kmsKeyId, availabilityZone: instance.subnet.zone, createTime: attachTime },
    status: attached(v) ? "in-use" : "available",
    attachmentSet: attached(v) ? [attachment] : [],
    tagSet: renderTags(child.tags),
  };
}

export const describeNetworkInterfaces: Action = ({ account, params }) => {
  const ids = params.texts("NetworkInterfaceId");
  const all = children(account, (i) => [i.networkInterface]);
  const known = new Set(all.map((n) => n.child.id));
  refuseMissing(ids, known, { code: "InvalidNetworkInterfaceID", noun: "networkInterface", prefix: "eni" });
  const asked = all.filter((n) => ids.length === 0 || ids.includes(n.child.id));
  const matching = applyFilters(
    asked,
    params.list("Filter"),
    {
      "network-interface-id": (n) => [n.child.id],
      status: (n) => [attached(n) ? "in-use" : "available"],
      "attachment.instance-id": (n) => (attached(n) ? [n.instance.id] : []),
      "subnet-id": (n) => [n.instance.subnet.id],
    },
    (n) => n.child.tags,
  );
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return {
    networkInterfaceSet: items.map((n) => ({
      ...{ networkInterfaceId: n.child.id, subnetId: n.instance.subnet.id, vpcId: n.instance.subnet.vpcId },
      ...{ ownerId: account.ownerId, privateIpAddress: n.child.address, availabilityZone: n.instance.subnet.zone },
      status: attached(n) ? "in-use" : "available",
      groupSet: n.instance.groups.map((groupId) => ({ groupId, groupName: groupId })),
      attachment: attached(n)
        ? {
            instanceId: n.instance.id,
            deviceIndex: 0,
            deleteOnTermination: n.child.deleteOnTermination,
            status: "attached",
          }
        : undefined,
      tagSet: renderTags(n.child.tags),
    })),
    nextToken,
  };
};

/** Every resource that can have tags, by id. */
function taggable(account: Ec2Account): Map<string, { readonly kind: string; readonly tags: Map<string, string> }> {
  const all = new Map<string, { readonly kind: string; readonly tags: Map<string, string> }>();
  for (const instance of account.instances.values()) {
    if (account.state(instance) !== undefined) all.set(instance.id, { kind: "instance", tags: instance.tags });
  }
  for (const { child } of children(account, (i) => i.volumes)) all.set(child.id, { kind: "volume", tags: child.tags });
  for (const { child } of children(account, (i) => [i.networkInterface])) {
    all.set(child.id, { kind: "network-interface", tags: child.tags });
  }
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
