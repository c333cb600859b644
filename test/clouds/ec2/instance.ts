import type { InstanceType } from "./instance-types.ts";
import type { XmlObject } from "./xml.ts";

export type StateName = "pending" | "running" | "shutting-down" | "terminated" | "stopping" | "stopped";

/** Source: EC2 API reference, InstanceState. */
export const STATE_CODES: Readonly<Record<StateName, number>> = {
  ...{ pending: 0, running: 16, "shutting-down": 32, terminated: 48, stopping: 64, stopped: 80 },
};

export interface Subnet {
  readonly id: string;
  readonly vpcId: string;
  readonly zone: string;
  /** The first three bytes of a /24. */
  readonly prefix: string;
  readonly mapPublicIp: boolean;
}

export interface Volume {
  readonly id: string;
  readonly zone: string;
  readonly createdAt: number;
  readonly sizeGiB: number;
  readonly type: string;
  readonly iops: number | undefined;
  readonly throughput: number | undefined;
  readonly snapshotId: string | undefined;
  readonly encrypted: boolean;
  readonly kmsKeyId: string | undefined;
  readonly tags: Map<string, string>;
  /** Of the attachment. */
  device: string;
  attachedAt: number;
  deleteOnTermination: boolean;
}

export interface NetworkInterface {
  readonly id: string;
  readonly subnet: Subnet;
  readonly groups: readonly string[];
  readonly description: string;
  readonly address: string;
  readonly publicAddress: string | undefined;
  readonly tags: Map<string, string>;
  /** Of the attachment. */
  deviceIndex: number;
  deleteOnTermination: boolean;
}

/** An instance as it was launched, and what happened to it since. */
export interface StoredInstance {
  readonly id: string;
  readonly reservationId: string;
  readonly type: InstanceType;
  readonly imageId: string;
  readonly rootDevice: string;
  readonly bootMode: string;
  readonly subnet: Subnet;
  readonly groups: readonly string[];
  readonly launchedAt: number;
  readonly clientToken: string | undefined;
  readonly spot: boolean;
  readonly sevSnp: boolean;
  readonly keyName: string | undefined;
  readonly tenancy: string;
  readonly metadata: {
    readonly tokens: string;
    readonly hopLimit: number;
    readonly endpoint: string;
    readonly tags: string;
  };
  readonly protectedFromTermination: boolean;
  /** As the guest's metadata service gives it; never in a reply. */
  readonly userData: Buffer;
  readonly tags: Map<string, string>;
  /** The root volume first. */
  readonly volumes: Volume[];
  readonly networkInterface: NetworkInterface;
  readonly moreInterfaces: NetworkInterface[];
  /** What a shutdown by the guest means. */
  readonly shutdownBehavior: "stop" | "terminate";
  /** Calls of Describe that do not show it yet. */
  hiddenFor: number;
  endedAt?: number;
  endReason?: { readonly code: string; readonly message: string };
  stopped?: boolean;
  console: string;
}

/** How long the states last, ms. */
export interface Durations {
  pendingMs: number;
  shuttingDownMs: number;
  /** How long a terminated instance stays visible. */
  terminatedMs: number;
}

export function stateOf(instance: StoredInstance, durations: Durations, now: number): StateName | "forgotten" {
  if (instance.endedAt !== undefined) {
    const since = now - instance.endedAt;
    if (since < durations.shuttingDownMs) return "shutting-down";
    return since < durations.shuttingDownMs + durations.terminatedMs ? "terminated" : "forgotten";
  }
  if (instance.stopped === true) return "stopped";
  return now - instance.launchedAt < durations.pendingMs ? "pending" : "running";
}

export function renderTags(tags: ReadonlyMap<string, string>): XmlObject[] {
  return [...tags].map(([key, value]) => ({ key, value }));
}

export function renderState(state: StateName): XmlObject {
  return { code: STATE_CODES[state], name: state };
}

/** An instance as RunInstances and DescribeInstances show it. */
export function renderInstance(i: StoredInstance, state: StateName, ownerId: string): XmlObject {
  const living = state !== "terminated";
  const { endReason, networkInterface: nic } = i;
  // RunInstances answers before the public address is there.
  const publicAddress = state === "running" || state === "stopped" ? nic.publicAddress : undefined;
  return {
    instanceId: i.id,
    imageId: i.imageId,
    instanceState: renderState(state),
    privateDnsName: living ? `ip-${nic.address.replaceAll(".", "-")}.internal` : "",
    dnsName: "",
    reason: i.endedAt === undefined ? "" : `User initiated (${new Date(i.endedAt).toISOString()})`,
    stateReason: endReason === undefined ? undefined : { ...endReason },
    keyName: i.keyName,
    amiLaunchIndex: 0,
    productCodes: [],
    instanceType: i.type.name,
    launchTime: new Date(i.launchedAt),
    placement: { availabilityZone: i.subnet.zone, groupName: "", tenancy: i.tenancy },
    monitoring: { state: "disabled" },
    subnetId: living ? i.subnet.id : undefined,
    vpcId: living ? i.subnet.vpcId : undefined,
    privateIpAddress: living ? nic.address : undefined,
    ipAddress: living ? publicAddress : undefined,
    sourceDestCheck: living ? true : undefined,
    groupSet: living ? i.groups.map((groupId) => ({ groupId, groupName: groupId })) : [],
    architecture: i.type.arch,
    rootDeviceType: "ebs",
    rootDeviceName: i.rootDevice,
    blockDeviceMapping: living ? i.volumes.map(renderMapping) : [],
    virtualizationType: "hvm",
    clientToken: i.clientToken ?? "",
    tagSet: renderTags(i.tags),
    hypervisor: "xen",
    instanceLifecycle: i.spot ? "spot" : undefined,
    networkInterfaceSet: living ? [nic, ...i.moreInterfaces].map((n) => renderAttachedInterface(n, i, ownerId)) : [],
    ebsOptimized: false,
    enaSupport: true,
    cpuOptions: {
      coreCount: Math.max(1, i.type.vcpus / 2),
      threadsPerCore: 2,
      ...(i.sevSnp ? { amdSevSnp: "enabled" } : {}),
    },
    metadataOptions: {
      state: state === "pending" ? "pending" : "applied",
      httpTokens: i.metadata.tokens,
      httpPutResponseHopLimit: i.metadata.hopLimit,
      httpEndpoint: i.metadata.endpoint,
      httpProtocolIpv6: "disabled",
      instanceMetadataTags: i.metadata.tags,
    },
    bootMode: i.bootMode,
    currentInstanceBootMode: i.bootMode === "legacy-bios" ? "legacy-bios" : "uefi",
  };
}

function renderMapping(v: Volume): XmlObject {
  const { deleteOnTermination, id } = v;
  return {
    deviceName: v.device,
    ebs: { volumeId: id, status: "attached", attachTime: new Date(v.attachedAt), deleteOnTermination },
  };
}

function renderAttachedInterface(n: NetworkInterface, i: StoredInstance, ownerId: string): XmlObject {
  const { id, address, deleteOnTermination, deviceIndex, publicAddress: publicIp } = n;
  return {
    networkInterfaceId: id,
    subnetId: n.subnet.id,
    vpcId: n.subnet.vpcId,
    ownerId,
    description: n.description,
    status: "in-use",
    privateIpAddress: address,
    sourceDestCheck: true,
    groupSet: n.groups.map((groupId) => ({ groupId, groupName: groupId })),
    attachment: {
      attachmentId: id.replace("eni-", "eni-attach-"),
      deviceIndex,
      status: "attached",
      attachTime: new Date(i.launchedAt),
      deleteOnTermination,
      networkCardIndex: 0,
    },
    association: publicIp === undefined ? undefined : { publicIp, publicDnsName: "", ipOwnerId: "amazon" },
    privateIpAddressesSet: [{ privateIpAddress: address, primary: true }],
    ipv6AddressesSet: [],
    interfaceType: "interface",
  };
}
