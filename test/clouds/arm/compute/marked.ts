import { ArmError } from "../arm-error.ts";
import type { VirtualMachine } from "../resources.ts";

/** Compute's answer to changes of a VM that is going. */
export function markedForDeletion(vm: VirtualMachine): ArmError {
  const message = `Operation 'update' is not allowed on VM '${vm.name}' since the VM is marked for deletion. You can only retry the Delete operation (or wait for an ongoing one to complete).`;
  return new ArmError(409, "OperationNotAllowed", message);
}
