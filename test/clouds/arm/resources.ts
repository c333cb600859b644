import type { Json } from "./body.ts";
import type { Operation } from "./operation.ts";
import type { VmSize } from "./vm-sizes.ts";

export type ProvisioningState = "Creating" | "Updating" | "Succeeded" | "Failed" | "Deleting";
export type DeleteOption = "Delete" | "Detach";

/** What every resource has. */
interface Common {
  /** As it was written by whoever made it. */
  readonly id: string;
  readonly name: string;
  readonly location: string;
  readonly zones: readonly string[];
  tags: Map<string, string>;
  /** Becomes the etag. */
  version: number;
  state: ProvisioningState;
  readonly createdAt: number;
  /** Operation that holds it now. */
  operation?: Operation | undefined;
  /** Lists, and reads, that do not show it yet. */
  hiddenLists: number;
  hiddenReads: number;
  /** Belongs to the account as tests find it. */
  seeded: boolean;
  /** Parts that are only shown again: sku, plan, identity. */
  shown: Readonly<Record<string, Json>>;
}

export type PowerState = "starting" | "running" | "stopping" | "stopped" | "deallocating" | "deallocated" | "unknown";

export interface AttachedNic {
  readonly id: string;
  readonly primary: boolean | undefined;
  deleteOption: DeleteOption | undefined;
}
export interface AttachedDisk {
  readonly id: string;
  readonly lun: number | undefined;
  deleteOption: DeleteOption;
}

export interface VirtualMachine extends Common {
  readonly type: "Microsoft.Compute/virtualMachines";
  size: VmSize;
  readonly vmId: string;
  /** The properties as they are shown, without those that change by themselves. */
  properties: Readonly<Record<string, Json>>;
  /** Base64, never shown but with $expand=userData. */
  userData: string | undefined;
  /** Base64, as the provisioning agent of the guest finds it on its OVF disk. */
  readonly customData: string | undefined;
  readonly spot: boolean;
  readonly computerName: string | undefined;
  /** Its guest has to report that it is ready before the creation succeeds. */
  readonly awaitsGuest: boolean;
  guestReady: boolean;
  nics: AttachedNic[];
  readonly osDisk: AttachedDisk;
  dataDisks: AttachedDisk[];
  power: PowerState;
  /** Why it failed. */
  error: { readonly code: string; readonly message: string } | undefined;
  bootDiagnostics: boolean;
  /** Serial console, where no machine stands behind it. */
  console: string;
  endedAt: number | undefined;
}

export interface IpConfiguration {
  readonly name: string;
  readonly primary: boolean;
  readonly subnetId: string;
  address: string;
  readonly allocation: "Dynamic" | "Static";
  publicIpId: string | undefined;
}
export interface NetworkInterface extends Common {
  readonly type: "Microsoft.Network/networkInterfaces";
  ipConfigurations: IpConfiguration[];
  securityGroupId: string | undefined;
  vmId: string | undefined;
  /** Kept for a VM whose creation failed. */
  reservedFor: { readonly vmId: string; readonly until: number } | undefined;
  properties: Readonly<Record<string, Json>>;
}

export interface PublicIp extends Common {
  readonly type: "Microsoft.Network/publicIPAddresses";
  readonly address: string;
  nicId: string | undefined;
  deleteOption: DeleteOption | undefined;
  properties: Readonly<Record<string, Json>>;
}

export interface Subnet {
  readonly id: string;
  readonly name: string;
  readonly prefix: string;
  properties: Readonly<Record<string, Json>>;
}
export interface VirtualNetwork extends Common {
  readonly type: "Microsoft.Network/virtualNetworks";
  prefixes: readonly string[];
  subnets: Subnet[];
}

export interface SecurityRule {
  readonly name: string;
  readonly properties: Readonly<Record<string, Json>>;
}
export interface SecurityGroup extends Common {
  readonly type: "Microsoft.Network/networkSecurityGroups";
  rules: SecurityRule[];
}

export type DiskState = "Unattached" | "Attached" | "Reserved" | "ReadyToUpload" | "ActiveUpload" | "ActiveSAS";
/** A disk's bytes on this machine, for those that have any. */
export interface DiskContent {
  /** Raw image, below whatever a VM writes. */
  readonly file: string;
  readonly bytes: number;
}
export interface Disk extends Common {
  readonly type: "Microsoft.Compute/disks";
  readonly sizeGiB: number;
  readonly osType: string | undefined;
  diskState: DiskState;
  vmId: string | undefined;
  content: DiskContent | undefined;
  /** Path of its blob while it is open to be written or read. */
  blob: string | undefined;
  readonly uploadBytes: number | undefined;
  readonly generation: "V1" | "V2" | undefined;
  readonly securityType: string | undefined;
  properties: Readonly<Record<string, Json>>;
}

/** What a VM needs to know of an image, wherever it is kept. */
export interface ImageFacts {
  readonly osType: "Linux" | "Windows";
  readonly osState: "Generalized" | "Specialized";
  readonly generation: "V1" | "V2";
  readonly arch: "x64" | "Arm64";
  /** Value of the feature SecurityType. */
  readonly securityType: string | undefined;
  readonly sizeGiB: number;
  readonly content: DiskContent | undefined;
  /** Terms that must have been accepted, and named in `plan`. */
  readonly plan?: { readonly name: string; readonly publisher: string; readonly product: string } | undefined;
}

export interface ManagedImage extends Common {
  readonly type: "Microsoft.Compute/images";
  readonly facts: ImageFacts;
  properties: Readonly<Record<string, Json>>;
}
export interface Gallery extends Common {
  readonly type: "Microsoft.Compute/galleries";
  properties: Readonly<Record<string, Json>>;
}
export interface GalleryImage extends Common {
  readonly type: "Microsoft.Compute/galleries/images";
  readonly facts: Omit<ImageFacts, "content" | "sizeGiB">;
  properties: Readonly<Record<string, Json>>;
}
export interface GalleryVersion extends Common {
  readonly type: "Microsoft.Compute/galleries/images/versions";
  readonly regions: readonly string[];
  readonly content: DiskContent | undefined;
  readonly sizeGiB: number;
  readonly excludeFromLatest: boolean;
  properties: Readonly<Record<string, Json>>;
}

export type Resource =
  | VirtualMachine
  | NetworkInterface
  | PublicIp
  | VirtualNetwork
  | SecurityGroup
  | Disk
  | ManagedImage
  | Gallery
  | GalleryImage
  | GalleryVersion;
export type ResourceType = Resource["type"];
export type ResourceOf<T extends ResourceType> = Extract<Resource, { readonly type: T }>;
