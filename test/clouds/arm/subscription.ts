import { randomBytes } from "node:crypto";
import { addressesOf } from "./addresses.ts";
import { ArmError } from "./arm-error.ts";
import type { Bucket, Clock } from "./clock.ts";
import { Operation, type OperationSpec } from "./operation.ts";
import { lastName, parseResourceId, resourceKey, sameResource } from "./resource-id.ts";
import type { DiskContent, Resource, ResourceOf, ResourceType, Subnet, VirtualMachine } from "./resources.ts";
import { SharedAccess } from "./sas.ts";

/** Stands behind the VMs: real ones, or nothing. */
export interface VmHost {
  /** It says what addresses its VMs have: until it has, an interface shows none. */
  readonly givesAddresses?: boolean;
  /** Called before the creation is answered. @returns the primary address; undefined takes the NIC's own */
  launch(vm: LaunchedVm): Promise<string | undefined>;
  /** Its disks are kept: powerOff and deallocate. */
  stop(id: string): Promise<void>;
  start(id: string): Promise<void>;
  remove(id: string): Promise<void>;
  /** Guests tell the fabric that they have been provisioned, as Azure's agents do: creations wait for it. */
  readonly guestsReport?: boolean;
  /** Serial console; undefined = what the test put into the VM's. */
  console?(id: string): Promise<string | undefined>;
}
export interface LaunchedVm {
  /** ARM id. */
  readonly id: string;
  /** Unique for ever, unlike the id. */
  readonly vmId: string;
  readonly size: string;
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** As the guest reads it from its metadata service, after base64. */
  readonly userData: Buffer;
  readonly image: DiskContent | undefined;
  readonly osDiskGiB: number;
  readonly dataDisks: readonly { readonly name: string; readonly lun: number; readonly sizeGiB: number }[];
  /** Primary first. */
  readonly nics: readonly { readonly id: string; readonly address: string }[];
}

/** What can be made to go wrong. Change it at any time. */
export interface Knobs {
  /** How long operations take, ms. */
  createMs: number;
  deleteMs: number;
  powerMs: number;
  diskMs: number;
  imageMs: number;
  networkMs: number;
  /** How long a VM with an OS profile may take until its guest reports. */
  guestReadyMs: number;
  /** Retry-After of Compute's long-running operations, s. */
  retryAfterS: number;
  /** Lists, and reads after a create, that do not show what is new. */
  hiddenLists: number;
  hiddenReads: number;
  maxPage: number;
  /** Every list begins with a page that is empty and has a nextLink. */
  emptyFirstPage: boolean;
  /**
   * `size/zone`, `size/` for regional VMs, `*` for any of both, `/spot` behind it for spot only: what has no room. Creations are accepted and fail later,
   * with ZonalAllocationFailed or AllocationFailed.
   */
  short: Set<string>;
  /** `size` or `size/zone` that the subscription may not use here: SkuNotAvailable, at once. */
  restricted: Set<string>;
  /** vCPUs by family; `cores` for all, `lowPriorityCores` for spot. */
  quota: Map<string, number>;
  /** Addresses that are free, by subnet id in lower case. */
  freeAddresses: Map<string, number>;
  /** Actions like `Microsoft.Compute/virtualMachines/write` that the caller may not take. */
  denied: Set<string>;
  /** Request limits by operation group (`PutVM`, `DeleteVM`, `GetVM`…) or `*` for the subscription's. */
  buckets: Map<string, Bucket>;
  /** The next that many creations stay Creating for ever; their VMs boot. */
  stuckCreations: number;
  /** A refused or failed creation leaves the interface that it had made. */
  orphanNics: boolean;
}

/** One subscription: what is there, and what happens to it. */
export class Subscription {
  readonly id = "11111111-2222-3333-4444-555555555555";
  readonly tenant = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
  readonly clock: Clock;
  readonly addressPrefix: string;
  readonly access = new SharedAccess();
  readonly knobs: Knobs = {
    ...{ createMs: 0, deleteMs: 0, powerMs: 0, diskMs: 0, imageMs: 0, networkMs: 0, guestReadyMs: 40 * 60_000 },
    ...{ retryAfterS: 10, hiddenLists: 0, hiddenReads: 0, maxPage: 1000, emptyFirstPage: false },
    ...{ short: new Set(), restricted: new Set(), quota: new Map(), freeAddresses: new Map(), denied: new Set() },
    ...{ buckets: new Map(), stuckCreations: 0, orphanNics: false },
  };
  /** Zones by location. */
  readonly locations = new Map<string, readonly string[]>([
    ["westeurope", ["1", "2", "3"]],
    ["northeurope", ["1", "2", "3"]],
    ["westus", []],
  ]);
  /** Name and location; names compare without regard to case. */
  readonly groups = new Map<string, { readonly name: string; readonly location: string; readonly seeded: boolean }>();
  readonly resources = new Map<string, Resource>();
  readonly operations = new Map<string, Operation>();
  /** VMs that are gone, oldest first. */
  readonly ended: VirtualMachine[] = [];
  host: VmHost | undefined;
  #sequence = 0;

  /** @param addressPrefix first two bytes of the first network's addresses */
  constructor(clock: Clock, addressPrefix = "10.0") {
    this.clock = clock;
    this.addressPrefix = addressPrefix;
  }

  now(): number {
    return this.clock.now();
  }

  /** Moves everything on to what it is now. */
  settle(): void {
    for (const operation of this.operations.values()) operation.settle(this.now());
  }

  begin(spec: OperationSpec): Operation {
    const operation = new Operation(spec, this.now());
    this.operations.set(operation.id, operation);
    return operation;
  }

  groupId(name: string): string {
    return `/subscriptions/${this.id}/resourceGroups/${name}`;
  }

  find<T extends ResourceType>(type: T, id: string): ResourceOf<T> | undefined {
    const found = this.resources.get(resourceKey(id));
    return found?.type === type ? (found as ResourceOf<T>) : undefined;
  }

  /** @throws ArmError ResourceNotFound as a GET of it does */
  need<T extends ResourceType>(type: T, id: string): ResourceOf<T> {
    const found = this.find(type, id);
    if (found === undefined) throw this.notFound(type, id);
    return found;
  }

  notFound(type: string, id: string): ArmError {
    const parsed = parseResourceId(id);
    const name = `${type}/${parsed?.names.join("/") ?? lastName(id)}`;
    const message = `The Resource '${name}' under resource group '${parsed?.group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix`;
    return new ArmError(404, "ResourceNotFound", message);
  }

  all<T extends ResourceType>(type: T): ResourceOf<T>[] {
    return [...this.resources.values()].filter((r): r is ResourceOf<T> => r.type === type);
  }

  put(resource: Resource): void {
    this.resources.set(resourceKey(resource.id), resource);
  }

  remove(resource: Resource): void {
    this.resources.delete(resourceKey(resource.id));
    if (resource.type !== "Microsoft.Compute/virtualMachines") return;
    resource.endedAt ??= this.now();
    this.ended.push(resource);
  }

  /** The subnet, and the network that it is in. */
  subnet(id: string): { readonly subnet: Subnet; readonly location: string } | undefined {
    for (const network of this.all("Microsoft.Network/virtualNetworks")) {
      const subnet = network.subnets.find((s) => sameResource(s.id, id));
      if (subnet !== undefined) return { subnet, location: network.location };
    }
    return undefined;
  }

  /** Addresses of a subnet that an interface has. */
  takenAddresses(subnetId: string): ReadonlySet<string> {
    const configurations = this.all("Microsoft.Network/networkInterfaces").flatMap((n) => n.ipConfigurations);
    return new Set(configurations.filter((c) => sameResource(c.subnetId, subnetId)).map((c) => c.address));
  }

  /** @returns undefined when the subnet is full */
  freeAddress(subnet: Subnet): string | undefined {
    const left = this.knobs.freeAddresses.get(resourceKey(subnet.id));
    const taken = this.takenAddresses(subnet.id);
    if (left !== undefined && taken.size >= left) return undefined;
    return addressesOf(subnet.prefix).find((a) => !taken.has(a));
  }

  /** vCPUs that count against a quota. */
  coresInUse(family: string, location: string): number {
    return this.all("Microsoft.Compute/virtualMachines")
      .filter((vm) => vm.location === location && vm.power !== "deallocated")
      .filter((vm) => (family === "lowPriorityCores" ? vm.spot : !vm.spot))
      .filter((vm) => family === "cores" || family === "lowPriorityCores" || vm.size.family === family)
      .reduce((sum, vm) => sum + vm.size.vcpus, 0);
  }

  /** What costs money or blocks other things: everything that is left when a test has cleaned up. */
  leftovers(): { readonly kind: string; readonly id: string }[] {
    this.settle();
    const groups = [...this.groups.values()].filter((g) => !g.seeded);
    return [
      ...[...this.resources.values()].filter((r) => !r.seeded).map((r) => ({ kind: lastName(r.type), id: r.id })),
      ...groups.map(({ name }) => ({ kind: "resourceGroups", id: this.groupId(name) })),
    ];
  }

  random(bytes: number): string {
    return randomBytes(bytes).toString("hex");
  }

  next(): number {
    return ++this.#sequence;
  }
}
