import { createHash } from "node:crypto";
import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { type NetworkInterface, renderInstance, type StoredInstance, type Volume } from "../instance.ts";
import { quotaClass } from "../instance-types.ts";
import type { Params } from "../query.ts";
import type { XmlObject } from "../xml.ts";
import { type Action, authorize } from "./action.ts";
import { type LaunchRequest, readLaunchRequest } from "./launch-request.ts";
import type { InterfaceRequest } from "./network-request.ts";

export const runInstances: Action = async ({ account, params, endDryRun }) => {
  const request = readLaunchRequest(account, params);
  if (request.tags.size > 0) authorize(account, "CreateTags");
  const parameters = fingerprint(params);
  const key = tokenKey(request);
  const earlier = key === undefined ? undefined : account.launches.get(key);
  if (earlier !== undefined) return repeated(account, earlier, parameters);
  refuseFullSubnet(account, request);
  endDryRun();
  refuseOverQuota(account, request);
  refuseWithoutCapacity(account, request);
  const count = takeFromPool(account, request);
  const reservationId = account.id("r");
  const made = Array.from({ length: count }, () => newInstance(account, request, reservationId));
  for (const instance of made) account.instances.set(instance.id, instance);
  if (key !== undefined) account.launches.set(key, { parameters, instances: made.map((i) => i.id) });
  for (const instance of made) await attachHost(account, instance);
  return reservation(account, made);
};

/** The scope of a client token. Source: EC2 developer guide, "RunInstances idempotency": zonal when a zone or subnet is named. */
function tokenKey(request: LaunchRequest): string | undefined {
  if (request.clientToken === undefined) return undefined;
  return `${request.clientToken}@${request.zonal ? request.subnet.zone : "region"}`;
}

function fingerprint(params: Params): string {
  const own = params.leaves().filter(([name]) => !["ClientToken", "DryRun", "Action", "Version"].includes(name));
  return createHash("sha256").update(JSON.stringify(own)).digest("hex");
}

function repeated(
  account: Ec2Account,
  earlier: { parameters: string; instances: readonly string[] },
  parameters: string,
): XmlObject {
  if (earlier.parameters !== parameters) {
    throw new ApiError(
      "IdempotentParameterMismatch",
      "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    );
  }
  const instances = earlier.instances.flatMap((id) => account.instances.get(id) ?? []);
  if (instances.some((i) => account.state(i) === "terminated" || account.state(i) === undefined)) {
    throw new ApiError(
      "IdempotentInstanceTerminated",
      "The client token you have provided is associated with a terminated instance. Please use a different client token.",
    );
  }
  return reservation(account, instances);
}

function refuseFullSubnet(account: Ec2Account, { subnet, count }: LaunchRequest): void {
  const free = account.knobs.freeAddresses.get(subnet.id);
  if (free === undefined || free >= count.max) return;
  throw new ApiError(
    "InsufficientFreeAddressesInSubnet",
    `There are not enough free addresses in subnet '${subnet.id}' to satisfy the requested number of instances.`,
  );
}

function refuseOverQuota(account: Ec2Account, { type, spot, count }: LaunchRequest): void {
  const quota = `${quotaClass(type.name)}/${spot ? "spot" : "on-demand"}`;
  const limit = account.knobs.vcpuQuota.get(quota);
  if (limit === undefined || account.vcpusInUse(quota) + type.vcpus * count.max <= limit) return;
  if (spot) throw new ApiError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded");
  throw new ApiError(
    "VcpuLimitExceeded",
    `You have requested more vCPU capacity than your current vCPU limit of ${limit} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.`,
  );
}

function refuseWithoutCapacity(account: Ec2Account, { type, spot, subnet }: LaunchRequest): void {
  const { short } = account.knobs;
  const market = spot ? "/spot" : "";
  const names = [type.name, "*"].flatMap((t) => [subnet.zone, "*"].map((z) => `${t}/${z}${market}`));
  if (!names.some((name) => short.has(name))) return;
  const others = account.subnets.map((s) => s.zone).filter((z) => z !== subnet.zone);
  throw new ApiError(
    "InsufficientInstanceCapacity",
    spot
      ? "There is no Spot capacity available that matches your request."
      : `We currently do not have sufficient ${type.name} capacity in the Availability Zone you requested (${subnet.zone}). Our system will be working on provisioning additional capacity. You can currently get ${type.name} capacity by not specifying an Availability Zone in your request or choosing ${others.join(", ")}.`,
  );
}

/** EC2 launches as many as the pool has, when that is at least MinCount. */
function takeFromPool(account: Ec2Account, { type, spot, subnet, count }: LaunchRequest): number {
  const name = `${type.name}/${subnet.zone}${spot ? "/spot" : ""}`;
  const left = account.knobs.pools.get(name);
  if (left === undefined) return count.max;
  const given = Math.min(left, count.max);
  if (given < count.min) {
    throw new ApiError("InsufficientInstanceCapacity", `There are ${left} of ${type.name} left in ${subnet.zone}.`);
  }
  account.knobs.pools.set(name, left - given);
  return given;
}

function newInstance(account: Ec2Account, request: LaunchRequest, reservationId: string): StoredInstance {
  const { type, image, subnet, tags } = request;
  const tagsFor = (kind: string): Map<string, string> => new Map(tags.get(kind));
  const [primary, ...more] = request.interfaces.map((asked, i) => newInterface(account, asked, i, tagsFor));
  if (primary === undefined) throw new Error("a launch request has at least one interface");
  return {
    ...{ id: account.id("i"), reservationId, type, imageId: image.id, bootMode: image.bootMode, subnet },
    ...{ rootDevice: image.devices[0]?.device ?? "", groups: primary.groups, launchedAt: account.now() },
    ...{ clientToken: request.clientToken, spot: request.spot, sevSnp: request.sevSnp, keyName: request.keyName },
    ...{ tenancy: request.tenancy, metadata: request.metadata, userData: request.userData },
    ...{ protectedFromTermination: request.protectedFromTermination, shutdownBehavior: request.shutdownBehavior },
    tags: tagsFor("instance"),
    volumes: volumesOf(account, request, tagsFor),
    networkInterface: primary,
    moreInterfaces: more,
    hiddenFor: account.knobs.hiddenDescribes,
    console: "",
  };
}

function newInterface(
  account: Ec2Account,
  asked: InterfaceRequest,
  deviceIndex: number,
  tagsFor: (kind: string) => Map<string, string>,
): NetworkInterface {
  const { subnet, groups, description, publicAddress, deleteOnTermination } = asked;
  const address = account.address(subnet);
  return {
    ...{ id: account.id("eni"), subnet, groups, description, address, deviceIndex, deleteOnTermination },
    publicAddress: publicAddress ? address.replace(/^\d+\.\d+/, "203.0") : undefined,
    tags: tagsFor("network-interface"),
  };
}

function volumesOf(
  account: Ec2Account,
  request: LaunchRequest,
  tagsFor: (kind: string) => Map<string, string>,
): Volume[] {
  const names = new Set([...request.image.devices, ...request.devices].map((d) => d.device));
  const now = account.now();
  return [...names].map((device) => {
    const fromImage = request.image.devices.find((d) => d.device === device);
    const asked = request.devices.find((d) => d.device === device);
    return {
      ...{ id: account.id("vol"), device, tags: tagsFor("volume"), kmsKeyId: asked?.kmsKeyId },
      ...{ zone: request.subnet.zone, createdAt: now, attachedAt: now, iops: asked?.iops },
      ...{ throughput: asked?.throughput, snapshotId: asked?.snapshotId ?? fromImage?.snapshotId },
      sizeGiB: asked?.sizeGiB ?? fromImage?.sizeGiB ?? account.snapshots.all.get(asked?.snapshotId ?? "")?.sizeGiB ?? 0,
      type: asked?.type ?? "gp2",
      encrypted: asked?.encrypted ?? false,
      // Source: EC2 user guide, "Preserve data when an instance is terminated": false for all but what the image says.
      deleteOnTermination: asked?.deleteOnTermination ?? fromImage?.deleteOnTermination ?? false,
    };
  });
}

async function attachHost(account: Ec2Account, instance: StoredInstance): Promise<void> {
  if (account.host === undefined) return;
  const { id, imageId, userData } = instance;
  const address = await account.host.launch({ id, type: instance.type.name, imageId, userData, instance });
  if (address === undefined) return;
  account.instances.set(id, { ...instance, networkInterface: { ...instance.networkInterface, address } });
}

function reservation(account: Ec2Account, made: readonly StoredInstance[]): XmlObject {
  const current = made.map((i) => account.instances.get(i.id) ?? i);
  return {
    reservationId: current[0]?.reservationId,
    ownerId: account.ownerId,
    groupSet: [],
    instancesSet: current.map((i) => renderInstance(i, account.state(i) ?? "terminated", account.ownerId)),
  };
}
