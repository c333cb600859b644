import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import type { StoredInstance, Volume } from "../instance.ts";
import { renderTags } from "../instance.ts";
import type { XmlObject } from "../xml.ts";
import { type Action, refuseMissing } from "./action.ts";
import { children } from "./children.ts";
import { refuseMissingInstances } from "./launch-request.ts";
import { readTagSpecifications } from "./tag-request.ts";
import { readVolume } from "./volume-request.ts";

const TAGGABLE: ReadonlySet<string> = new Set(["volume"]);

export const createVolume: Action = ({ account, params, endDryRun }) => {
  const zone = params.need("AvailabilityZone");
  if (!account.subnets.some((s) => s.zone === zone))
    throw new ApiError("InvalidZone.NotFound", `The zone '${zone}' does not exist.`);
  const snapshotId = params.text("SnapshotId");
  const asked = readVolume(account, {
    ...{ sizeGiB: params.integer("Size"), type: params.text("VolumeType"), iops: params.integer("Iops"), snapshotId },
    ...{ throughput: params.integer("Throughput"), encrypted: params.flag("Encrypted") },
    kmsKeyId: params.text("KmsKeyId"),
  });
  const token = params.text("ClientToken");
  const tags = readTagSpecifications(params, TAGGABLE);
  const parameters = JSON.stringify(params.leaves().filter(([name]) => name !== "ClientToken"));
  endDryRun();
  const earlier = token === undefined ? undefined : account.volumeTokens.get(token);
  if (earlier !== undefined && earlier.parameters !== parameters)
    throw new ApiError("IdempotentParameterMismatch", "The client token was used with other parameters.");
  const known = earlier === undefined ? undefined : account.volumes.get(earlier.id);
  if (known !== undefined) return renderCreated(known);
  const now = account.now();
  const made: Volume = {
    ...{ id: account.id("vol"), zone, createdAt: now, attachedAt: now, device: "", deleteOnTermination: false },
    ...{ sizeGiB: asked.sizeGiB ?? account.snapshots.all.get(snapshotId ?? "")?.sizeGiB ?? 0, snapshotId },
    ...{ type: asked.type ?? "gp2", iops: asked.iops, throughput: asked.throughput, kmsKeyId: asked.kmsKeyId },
    ...{ encrypted: asked.encrypted ?? false, tags: new Map(tags.get("volume")) },
  };
  account.volumes.set(made.id, made);
  if (token !== undefined) account.volumeTokens.set(token, { id: made.id, parameters });
  return renderCreated(made);
};

function renderCreated(v: Volume): XmlObject {
  return {
    ...{ volumeId: v.id, size: v.sizeGiB, volumeType: v.type, iops: v.iops, throughput: v.throughput },
    ...{ encrypted: v.encrypted, kmsKeyId: v.kmsKeyId, snapshotId: v.snapshotId ?? "", availabilityZone: v.zone },
    ...{ status: "creating", createTime: new Date(v.createdAt), tagSet: renderTags(v.tags), multiAttachEnabled: false },
  };
}

export const attachVolume: Action = async ({ account, params, endDryRun }) => {
  const [volumeId, instanceId] = [params.need("VolumeId"), params.need("InstanceId")];
  const device = params.need("Device");
  const { volume, owner } = find(account, volumeId);
  const instance = living(account, instanceId);
  if (owner !== undefined) throw new ApiError("VolumeInUse", `${volumeId} is already attached to an instance`);
  if (volume.zone !== instance.subnet.zone)
    throw new ApiError(
      "InvalidVolume.ZoneMismatch",
      `The volume '${volumeId}' is not in the same availability zone as instance '${instanceId}'`,
    );
  if (instance.volumes.some((v) => v.device === device))
    throw new ApiError("InvalidParameterValue", `Invalid value '${device}' for unixDevice. Attachment point is in use`);
  endDryRun();
  account.volumes.delete(volumeId);
  Object.assign(volume, { device, attachedAt: account.now(), deleteOnTermination: false });
  instance.volumes.push(volume);
  await account.host?.attach?.(instanceId, volume);
  return attachment(volume, instanceId, "attaching");
};

export const detachVolume: Action = async ({ account, params, endDryRun }) => {
  const volumeId = params.need("VolumeId");
  const [asked, device] = [params.text("InstanceId"), params.text("Device")];
  params.flag("Force");
  const { volume, owner } = find(account, volumeId);
  if (owner === undefined || (asked !== undefined && asked !== owner.id) || (device ?? volume.device) !== volume.device)
    throw new ApiError("IncorrectState", `Volume '${volumeId}' is in the 'available' state.`);
  if (volume.device === owner.rootDevice)
    throw new ApiError(
      "OperationNotPermitted",
      `Unable to detach root volume '${volumeId}' from instance '${owner.id}'`,
    );
  endDryRun();
  await account.host?.detach?.(owner.id, volume);
  owner.volumes.splice(owner.volumes.indexOf(volume), 1);
  account.volumes.set(volumeId, volume);
  return attachment(volume, owner.id, "detaching");
};

function attachment(v: Volume, instanceId: string, status: string): XmlObject {
  const { id: volumeId, device, attachedAt, deleteOnTermination } = v;
  return { volumeId, instanceId, device, status, attachTime: new Date(attachedAt), deleteOnTermination };
}

export const deleteVolume: Action = ({ account, params, endDryRun }) => {
  const id = params.need("VolumeId");
  const { owner } = find(account, id);
  if (owner !== undefined) throw new ApiError("VolumeInUse", `Volume ${id} is currently attached to ${owner.id}`);
  endDryRun();
  account.volumes.delete(id);
  for (const instance of account.instances.values()) {
    const at = instance.volumes.findIndex((v) => v.id === id);
    if (at >= 0) instance.volumes.splice(at, 1); // it has outlived the instance
  }
  return { return: true };
};

/** @returns the volume and the living instance that has it */
function find(account: Ec2Account, id: string): { volume: Volume; owner: StoredInstance | undefined } {
  const all = children(account, (i) => i.volumes);
  const known = new Set([...all.map((c) => c.child.id), ...account.volumes.keys()]);
  refuseMissing([id], known, { code: "InvalidVolume", noun: "volume", prefix: "vol" });
  const found = all.find((c) => c.child.id === id);
  const volume = account.volumes.get(id) ?? found?.child;
  if (volume === undefined) throw new Error("refuseMissing lets nothing pass that is not there");
  const attached = found !== undefined && found.state !== undefined && found.state !== "terminated";
  return { volume, owner: attached ? found.instance : undefined };
}

function living(account: Ec2Account, id: string): StoredInstance {
  const instance = account.instances.get(id);
  const state = instance === undefined ? undefined : account.state(instance);
  refuseMissingInstances([id], new Set(state === undefined ? [] : [id]));
  if (instance === undefined || (state !== "running" && state !== "stopped"))
    throw new ApiError("IncorrectState", `Instance '${id}' is not 'running'.`);
  return instance;
}
