import type { Static, TSchema } from "typebox";
import type { Call } from "../base/call.ts";
import type { InstanceId } from "../base/ids.ts";
import type { CloudAccount } from "./account.ts";
import type { BatchCreation } from "./batch.ts";
import type { Instance, InstanceSpec } from "./instance.ts";
import type { ProviderDeps } from "./provider-deps.ts";
import type { PublisherPlugin } from "./publish.ts";
import type { VolumeAttachment } from "./volumes.ts";

/** One cloud (or this host's QEMU). Stateless: everything it must remember is a tag on the resource. */
export interface Provider {
  readonly name: string;
  /** Undefined where requests are not limited. */
  readonly account?: CloudAccount;
  /** That every VM has an empty disk besides its first, for the guest to format: what pods write goes there. */
  readonly scratchDisk?: boolean;
  /** That every VM has one more network interface, which pods can have as their way out. */
  readonly secondInterface?: boolean;
  /** Undefined where no volume that outlives a VM can be attached to it. */
  readonly volumes?: VolumeAttachment;
  /** Undefined where VMs are made one by one, with createInstance. */
  readonly batches?: BatchCreation;
  /**
   * Idempotent by `spec.tags.createOperation`: a second call returns the first instance.
   * Resolves as soon as the provider has accepted; addresses may still be empty.
   * @throws Fault resource_exhausted | invalid_argument | permission_denied | unavailable
   */
  createInstance(spec: InstanceSpec, call: Call): Promise<Instance>;
  /** "gone" also for an id never seen. Ask again until "gone". Deletes children too. */
  deleteInstance(id: InstanceId, call: Call): Promise<"deleting" | "gone">;
  getInstance(id: InstanceId, call: Call): Promise<Instance | undefined>;
  /** All instances of the cluster. Complete or throws: a partial list would make a living VM look like an orphan. */
  listInstances(cluster: string, call: Call): Promise<readonly Instance[]>;
  /** Serial console, newest `maxBytes`; undefined where it cannot be read. */
  consoleOutput(id: InstanceId, maxBytes: number, call: Call): Promise<string | undefined>;
  /** Reads only: what a create would need. @throws Fault failed_precondition with the remedy in the message */
  verify(call: Call): Promise<readonly Finding[]>;
  close(): Promise<void>;
}

/** One line of `kata-remote check`. */
export interface Finding {
  readonly subject: string;
  readonly state: "ok" | "warning" | "error";
  readonly detail: string;
  readonly remedy?: string;
}

/** What a provider folder exports. No side effect on import; registration is a table in providers/registry.ts. */
export interface ProviderPlugin<S extends TSchema = TSchema> {
  readonly name: string;
  readonly configSchema: S;
  /** Cloud actions the credentials need. */
  readonly permissions: readonly string[];
  /** Undefined where images are files of this host. */
  readonly publisher?: PublisherPlugin;
  create(config: Static<S>, deps: ProviderDeps): Promise<Provider>;
}
