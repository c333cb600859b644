import type { InstanceId, SandboxId } from "../base/ids.ts";

/** Put on the instance and on every billable child from creation on: listInstances finds them by it. */
export interface OwnerTags {
  readonly cluster: string;
  readonly owner: "kata-remote";
  /** The operation that created it; also the idempotency token of the create call. */
  readonly createOperation: string;
  /** RFC 3339 */
  readonly created: string;
}

/** Everything a provider may know about the VM to make: complete, immutable, cloud-neutral. */
export interface InstanceSpec {
  /** DNS label, at most 63 bytes; what an operator sees in the cloud console. */
  readonly name: string;
  readonly tags: OwnerTags;
  readonly sandboxId: SandboxId;
  /** When set it wins over vcpus/memoryMiB/gpus. */
  readonly instanceType?: string;
  readonly vcpus: number;
  /** What the machine gets, the guest's own overhead included, MiB. */
  readonly memoryMiB: number;
  readonly gpus: number;
  /** Empty = the provider's configured default. */
  readonly image?: string;
  readonly rootDiskGiB?: number;
  /** Ids of volumes that outlive the VM, see VolumeAttachment; in the order in which they are attached. Absent: none. */
  readonly volumes?: readonly string[];
  /** cloud-init document; never logged. */
  readonly userData: Uint8Array;
}

export interface Instance {
  readonly id: InstanceId;
  readonly name: string;
  readonly tags: OwnerTags;
  readonly state: "pending" | "running" | "deleting" | "failed";
  /** Primary first; empty while not known. */
  readonly addresses: readonly string[];
  /** TCP port of the agent tunnel at that address, when it is not the contract's 15150 (user-mode networks map it). */
  readonly tunnelPort?: number;
  readonly createdAt: Date;
  /** Whose VM it is, where the provider was told and can read it (BatchCreation.assign). Never the only evidence. */
  readonly assigned?: { readonly sandboxId?: SandboxId; readonly nodeId?: string };
  /** Why it failed, in the provider's words. */
  readonly reason?: string;
}
