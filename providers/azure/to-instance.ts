import type { VirtualMachine } from "@azure/arm-compute";
import { Fault } from "../../src/base/fault.ts";
import { parseInstanceId } from "../../src/base/ids.ts";
import type { Instance } from "../../src/provider/index.ts";
import type { AzureError } from "./faults.ts";
import { fromAzureTags } from "./tags.ts";
import { stateOf } from "./vm-state.ts";

/** A VM with the addresses of its interfaces, primary first; empty while not known. */
export interface VmView {
  readonly vm: VirtualMachine;
  readonly addresses: readonly string[];
}

export function toInstance({ vm, addresses }: VmView): Instance {
  if (vm.name === undefined) throw new Fault("internal", "Azure described a VM without a name", { provider: "azure" });
  const createdAt = vm.timeCreated ?? new Date(0);
  const { state, error } = stateOf(vm);
  return {
    ...{
      id: parseInstanceId(vm.name.toLowerCase()),
      ...fromAzureTags(vm.tags, createdAt),
      state,
      createdAt,
      addresses,
    },
    ...(state === "failed" ? { reason: reasonOf(vm, error) } : {}),
  };
}

function reasonOf(vm: VirtualMachine, error: AzureError | undefined): string {
  const said = error === undefined ? "Azure gives no reason" : `${error.code}: ${error.message}`;
  return `its provisioning state is ${vm.provisioningState}: ${said}`;
}
