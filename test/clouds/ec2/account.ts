import { randomBytes } from "node:crypto";
import type { Bucket, Clock } from "./clock.ts";
import { Snapshots } from "./ebs/snapshots.ts";
import type { Durations, NetworkInterface, StateName, StoredInstance, Subnet, Volume } from "./instance.ts";
import { stateOf } from "./instance.ts";
import { INSTANCE_TYPES, type InstanceType, quotaClass } from "./instance-types.ts";

export interface Image {
  readonly id: string;
  readonly name: string;
  readonly ownerId: string;
  readonly created: string;
  readonly arch: "x86_64" | "arm64";
  readonly bootMode: "legacy-bios" | "uefi" | "uefi-preferred";
  readonly state: "available" | "pending" | "failed";
  readonly devices: readonly ImageDevice[];
  readonly description?: string | undefined;
  readonly tpm?: boolean;
}
export interface ImageDevice {
  readonly device: string;
  readonly snapshotId: string;
  readonly sizeGiB: number;
  readonly deleteOnTermination: boolean;
}

export interface SecurityGroup {
  readonly id: string;
  readonly vpcId: string;
  /** Protocol -1 is all of them. */
  readonly ingress: readonly {
    readonly protocol: string;
    readonly from?: number;
    readonly to?: number;
    readonly cidr?: string;
    readonly group?: string;
  }[];
}

export interface LaunchTemplate {
  readonly id: string;
  readonly name: string;
  readonly imageId?: string;
  readonly instanceType?: string;
  readonly subnetId?: string;
  readonly groups?: readonly string[];
  readonly deleteOnTermination?: boolean;
}

/** Stands behind an instance: a real VM, or nothing. */
export interface InstanceHost {
  /** Called before RunInstances answers. @returns the address the instance has; undefined keeps the one of the subnet */
  launch(launched: {
    readonly id: string;
    readonly type: string;
    readonly imageId: string;
    readonly userData: Buffer;
    readonly instance: StoredInstance;
  }): Promise<string | undefined>;
  terminate(instanceId: string): Promise<void>;
  /** @returns undefined = what the test put into the instance's console */
  console?(instanceId: string): Promise<string | undefined>;
  /** Before AttachVolume and DetachVolume answer. */
  attach?(instanceId: string, volume: Volume): Promise<void>;
  detach?(instanceId: string, volume: Volume): Promise<void>;
}

/** What can be made to go wrong. Change it at any time. */
export interface Knobs extends Durations {
  /** Calls of Describe that do not show a new instance. */
  hiddenDescribes: number;
  /** Pages are at most this long, whatever the caller asks for. */
  maxPage: number;
  /** Every list begins with a page that is empty and has a NextToken, as the service may do. */
  emptyFirstPage: boolean;
  /** `type/zone`, `type/zone/spot`, `*` for any: RunInstances answers InsufficientInstanceCapacity. */
  short: Set<string>;
  /** vCPUs that may run, by quota class and market, e.g. `Standard/on-demand`. */
  vcpuQuota: Map<string, number>;
  /** Actions that the caller may not take. */
  denied: Set<string>;
  /** Request limits by action; `*` for all others. */
  buckets: Map<string, Bucket>;
  /** Resource limits by action: a launch takes as many tokens as it asks for instances. */
  resourceBuckets: Map<string, Bucket>;
  /** Instances that a pool still has, by `type/zone` and `type/zone/spot`; a launch gets what there is. */
  pools: Map<string, number>;
  /** Snapshots that may be pending at a time. */
  pendingSnapshots: number;
  /** How long a snapshot stays pending when all of it was written, ms. */
  snapshotMs: number;
  /** Free addresses per subnet id, where it is not the usual 250. */
  freeAddresses: Map<string, number>;
}

/** One account in one region: what is there, and what happens to it. */
export class Ec2Account {
  readonly region: string;
  readonly ownerId = "111122223333";
  readonly clock: Clock;
  readonly knobs: Knobs = {
    ...{
      pendingMs: 0,
      shuttingDownMs: 0,
      terminatedMs: 3_600_000,
      hiddenDescribes: 0,
      maxPage: 1000,
      emptyFirstPage: false,
      pendingSnapshots: 100,
      snapshotMs: 0,
    },
    ...{ short: new Set(), vcpuQuota: new Map(), denied: new Set(), buckets: new Map(), freeAddresses: new Map() },
    ...{ resourceBuckets: new Map(), pools: new Map() },
  };
  readonly types: readonly InstanceType[] = INSTANCE_TYPES;
  readonly subnets: readonly Subnet[];
  readonly groups: SecurityGroup[];
  readonly images: Image[];
  readonly keyPairs = new Set(["operator"]);
  /** `type/zone` that the region does not have. */
  readonly notOffered = new Set<string>();
  readonly placementGroups = new Set(["pods"]);
  readonly launchTemplates: LaunchTemplate[] = [];
  readonly instances = new Map<string, StoredInstance>();
  /** Volumes that belong to no instance. */
  readonly volumes = new Map<string, Volume>();
  /** Network interfaces that belong to no instance. */
  readonly interfaces = new Map<string, NetworkInterface>();
  readonly snapshots = new Snapshots();
  /** Client tokens of StartSnapshot. */
  readonly snapshotStarts = new Map<string, { readonly id: string; readonly parameters: string }>();
  /** Client tokens of CreateVolume. */
  readonly volumeTokens = new Map<string, { readonly id: string; readonly parameters: string }>();
  /** Tags of what is not an instance, volume or network interface. */
  readonly otherTags = new Map<string, Map<string, string>>();
  /** Client tokens of successful launches, by token and scope. */
  readonly launches = new Map<string, { readonly parameters: string; readonly instances: readonly string[] }>();
  host: InstanceHost | undefined;
  /** Ids of the images that the account comes with. */
  readonly #given: ReadonlySet<string>;
  #nextAddress = 10;

  constructor(options: { readonly region: string; readonly clock: Clock; readonly addressPrefix?: string }) {
    this.region = options.region;
    this.clock = options.clock;
    const vpcId = "vpc-0a1b2c3d4e5f60001";
    this.subnets = ["a", "b", "c"].map((zone, i) => ({
      ...{
        id: `subnet-0a1b2c3d4e5f6000${zone}`,
        vpcId,
        zone: `${options.region}${zone}`,
        prefix: `${options.addressPrefix ?? "10.0"}.${i}`,
        mapPublicIp: false,
      },
    }));
    this.groups = [
      {
        id: "sg-0a1b2c3d4e5f60001",
        vpcId,
        ingress: [{ protocol: "tcp", from: 15150, to: 15150, group: "sg-0a1b2c3d4e5f60001" }],
      },
      { id: "sg-0a1b2c3d4e5f60002", vpcId, ingress: [{ protocol: "tcp", from: 22, to: 22, cidr: "10.0.0.0/16" }] },
      { id: "sg-0a1b2c3d4e5f60003", vpcId: "vpc-0a1b2c3d4e5f60002", ingress: [{ protocol: "-1", cidr: "0.0.0.0/0" }] },
    ];
    this.images = [
      image("ami-0a1b2c3d4e5f60001", this.ownerId, { name: "kata-remote-podvm-1" }),
      image("ami-0a1b2c3d4e5f60002", this.ownerId, {
        name: "kata-remote-podvm-2",
        created: "2026-02-01T00:00:00.000Z",
      }),
      image("ami-0a1b2c3d4e5f60003", this.ownerId, { name: "arm", arch: "arm64" }),
      image("ami-0a1b2c3d4e5f60004", this.ownerId, { name: "bios", bootMode: "legacy-bios" }),
      image("ami-0a1b2c3d4e5f60005", this.ownerId, { name: "failed", state: "failed" }),
      image("ami-0a1b2c3d4e5f60006", this.ownerId, {
        name: "two-disks",
        devices: [ROOT, { ...ROOT, device: "/dev/sdb", deleteOnTermination: false }],
      }),
    ];
    this.#given = new Set(this.images.map((i) => i.id));
  }

  now(): number {
    return this.clock.now();
  }

  /** @returns undefined for one that is not there any more */
  state(instance: StoredInstance): StateName | undefined {
    const state = stateOf(instance, this.knobs, this.now());
    return state === "forgotten" ? undefined : state;
  }

  /** Ends an instance as AWS or the guest does. */
  end(id: string, code: string, message: string): void {
    const instance = this.instances.get(id);
    if (instance === undefined) throw new Error(`there is no instance ${id}`);
    instance.endedAt ??= this.now();
    instance.endReason ??= { code, message };
  }

  /** vCPUs that count against a quota. */
  vcpusInUse(quota: string): number {
    return [...this.instances.values()]
      .filter((i) => this.state(i) !== "terminated" && this.state(i) !== undefined)
      .filter((i) => `${quotaClass(i.type.name)}/${i.spot ? "spot" : "on-demand"}` === quota)
      .reduce((sum, i) => sum + i.type.vcpus, 0);
  }

  /** What costs money or blocks other things: everything that is left when a test has cleaned up. */
  leftovers(): { readonly kind: string; readonly id: string }[] {
    const ofInstances = [...this.instances.values()].flatMap((i) => {
      const state = this.state(i);
      const ended = state === "terminated" || state === undefined;
      return [
        ...(ended ? [] : [{ kind: "instance", id: i.id }]),
        ...i.volumes.filter((v) => !ended || !v.deleteOnTermination).map(({ id }) => ({ kind: "volume", id })),
        ...[i.networkInterface, ...i.moreInterfaces]
          .filter((n) => !ended || !n.deleteOnTermination)
          .map(({ id }) => ({ kind: "network-interface", id })),
      ];
    });
    return [
      ...ofInstances,
      ...[...this.volumes.keys()].map((id) => ({ kind: "volume", id })),
      ...[...this.interfaces.keys()].map((id) => ({ kind: "network-interface", id })),
      ...[...this.snapshots.all.keys()].map((id) => ({ kind: "snapshot", id })),
      ...this.images.filter((i) => !this.#given.has(i.id)).map(({ id }) => ({ kind: "image", id })),
    ];
  }

  address(subnet: Subnet): string {
    this.#nextAddress++;
    return `${subnet.prefix}.${(this.#nextAddress % 240) + 10}`;
  }

  id(prefix: string): string {
    return `${prefix}-0${randomBytes(8).toString("hex")}`;
  }
}

const ROOT: ImageDevice = {
  device: "/dev/xvda",
  snapshotId: "snap-0a1b2c3d4e5f60001",
  sizeGiB: 4,
  deleteOnTermination: true,
};

function image(id: string, ownerId: string, change: Partial<Image>): Image {
  return {
    ...{
      id,
      ownerId,
      name: id,
      created: "2026-01-01T00:00:00.000Z",
      arch: "x86_64",
      bootMode: "uefi",
      state: "available",
    },
    devices: [ROOT],
    ...change,
  };
}
