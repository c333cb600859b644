import type { Disk } from "@azure/arm-compute";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { VolumeAttachment } from "../../src/provider/index.ts";
import type { ArmApi } from "./arm-api.ts";
import { nameOf } from "./names.ts";

const ID = /^\/subscriptions\/[^/]+\/resourceGroups\/[^/]+\/providers\/Microsoft\.Compute\/disks\/[^/]+$/i;

/** What a VM with volumes needs to know of them. */
export interface VolumePlace {
  /** Where the VM has to be; undefined = in no zone; "any" = they are in all. */
  readonly zone: string | undefined;
}

/**
 * Managed disks that outlive VMs. They are in the request that makes the VM, at LUN 0, 1, … in their order, and its
 * deletion lets go of them (deleteOption Detach): nothing is left to be done before or after.
 */
export class Volumes implements VolumeAttachment {
  readonly #api: Pick<ArmApi, "getDisk">;

  constructor(deps: { readonly api: Pick<ArmApi, "getDisk"> }) {
    this.#api = deps.api;
  }

  check(volumeId: string): void {
    if (!ID.test(volumeId)) throw badRequest(`"${volumeId}" is no resource id of a managed disk`);
  }

  async attach(): Promise<void> {
    // The VM was made with them.
  }

  async detach(): Promise<void> {
    // The VM's deletion does it, and Azure takes no change of a VM that is being deleted.
  }

  /**
   * Looks at all of them, for the VM that is to have them.
   * @throws Fault invalid_argument when one is not there or they are in several zones, unavailable while another VM has one
   */
  async place(volumeIds: readonly string[], vm: string, call: Call): Promise<VolumePlace> {
    const zones = new Set<string | undefined>();
    for (const id of volumeIds) {
      const disk = await this.#api.getDisk(id, call);
      if (disk === undefined) throw badRequest(`there is no disk ${id}`);
      const owner = nameOf(disk.managedBy);
      if (owner !== "" && owner.toLowerCase() !== vm.toLowerCase()) {
        const message = `disk ${nameOf(id)} is attached to ${owner} still: it is tried again`;
        throw new Fault("unavailable", message, { provider: "azure", kind: "transient" }, { retryable: true });
      }
      if (!isZoneRedundant(disk)) zones.add(disk.zones?.[0]);
    }
    if (zones.size === 0) return { zone: "any" };
    if (zones.size === 1) return { zone: [...zones][0] };
    const where = [...zones].map((zone) => zone ?? "none").join(", ");
    throw badRequest(
      `disks ${volumeIds.map(nameOf).join(", ")} are in zones ${where}: one VM can have those of one only`,
    );
  }
}

/** Source: Azure, "Redundancy options for managed disks": a ZRS disk can be attached in every zone. */
function isZoneRedundant(disk: Disk): boolean {
  return disk.sku?.name?.endsWith("_ZRS") === true;
}

function badRequest(message: string): Fault {
  return new Fault("invalid_argument", message, { provider: "azure", kind: "bad-request" });
}
