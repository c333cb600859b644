import type { Call } from "../base/call.ts";
import type { InstanceId } from "../base/ids.ts";

/**
 * Volumes that exist on their own: made by somebody else (a CSI driver, an operator), attached to a VM for as long as it
 * lives, never made and never deleted here. A spec names them (`InstanceSpec.volumes`), so that the VM is made where they
 * are; a place in that list is what the guest finds a volume by where the cloud shows it no id.
 */
export interface VolumeAttachment {
  /** @throws Fault invalid_argument for what cannot be the id of a volume here */
  check(volumeId: string): void;
  /**
   * Resolves when all of an instance's are attached; those that the create call has attached too. Repeatable.
   * @throws Fault unavailable while one is attached elsewhere, invalid_argument for one that is not there
   */
  attach(id: InstanceId, volumeIds: readonly string[], call: Call): Promise<void>;
  /**
   * Asks the cloud to let go of them, before their VM ends: sooner free for the next one. The VM's end does the same, so
   * whoever cannot wait need not. Repeatable; what is not attached to this instance is left alone.
   */
  detach(id: InstanceId, volumeIds: readonly string[], call: Call): Promise<void>;
}
