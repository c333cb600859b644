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
  readonly device: string;
  readonly sizeGiB: number;
  readonly type: string;
  readonly encrypted: boolean;
  readonly kmsKeyId: string | undefined;
  readonly deleteOnTermination: boolean;
  readonly tags: Map<string, string>;
}

export interface NetworkInterface {
  readonly id: string;
  readonly address: string;
  readonly publicAddress: string | undefined;
  readonly deleteOnTermination: boolean;
  readonly tags: Map<string, string>;
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
  readonly volumes: readonly Volume[];
  readonly networkInterface: NetworkInterface;
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
    blockDeviceMapping: living ? i.volumes.map((v) => renderMapping(v, i)) : [],
    virtualizationType: "hvm",
    clientToken: i.clientToken ?? "",
    tagSet: renderTags(i.tags),
    hypervisor: "xen",
    instanceLifecycle: i.spot ? "spot" : undefined,
    networkInterfaceSet: living ? [renderAttachedInterface(i, publicAddress, ownerId)] : [],
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

function renderMapping(v: Volume, i: StoredInstance): XmlObject {
  const { deleteOnTermination, id } = v;
  return {
    deviceName: v.device,
    ebs: { volumeId: id, status: "attached", attachTime: new Date(i.launchedAt), deleteOnTermination },
  };
}

function renderAttachedInterface(i: StoredInstance, publicIp: string | undefined, ownerId: string): XmlObject {
  const { id, address, deleteOnTermination } = i.networkInterface;
  return {
    networkInterfaceId: id,
    subnetId: i.subnet.id,
    vpcId: i.subnet.vpcId,
    ownerId,
    status: "in-use",
    privateIpAddress: address,
    sourceDestCheck: true,
    groupSet: i.groups.map((groupId) => ({ groupId, groupName: groupId })),
    attachment: {
      attachmentId: id.replace("eni-", "eni-attach-"),
      deviceIndex: 0,
      status: "attached",
      attachTime: new Date(i.launchedAt),
      deleteOnTermination,
    },
    association: publicIp === undefined ? undefined : { publicIp, publicDnsName: "", ipOwnerId: "amazon" },
    privateIpAddressesSet: [{ privateIpAddress: address, primary: true }],
    ipv6AddressesSet: [],
    interfaceType: "interface",
  };
}
