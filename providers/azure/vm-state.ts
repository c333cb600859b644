import type { InstanceViewStatus, VirtualMachine } from "@azure/arm-compute";
import type { Instance } from "../../src/provider/index.ts";
import type { AzureError } from "./faults.ts";

/** What a VM is, read from all that Azure says of it. */
export interface VmState {
  readonly state: Instance["state"];
  /** Room has been found for it: what goes wrong from here on is not for want of capacity. */
  readonly placed: boolean;
  /** Why it failed; undefined when that is only in the instance view, which a listing lacks. */
  readonly error?: AzureError;
}

/** Of a guest that runs all the same: it never told the host that it is up, as one without Azure's agent never does. */
const GUEST_SILENT = /^(OSProvisioning|VMExtension|VMAgentStatus)/i;
const OFF = new Set(["deallocated", "deallocating", "stopped", "stopping"]);

/** Source: "States and billing status of Azure Virtual Machines"; REST reference, instance view. */
export function stateOf(vm: VirtualMachine): VmState {
  const statuses = vm.instanceView?.statuses ?? [];
  const power = partOfCode(statuses, "PowerState")?.code;
  const failure = failureOf(statuses);
  const runs = power === "running";
  const placed = runs || statuses.some((s) => /^ProvisioningState\/creating\/OSProvisioning/i.test(s.code ?? ""));
  switch (vm.provisioningState?.toLowerCase()) {
    case "deleting":
      return { state: "deleting", placed: true };
    case "failed":
    case "canceled":
      if (runs && failure !== undefined && GUEST_SILENT.test(failure.code)) return { state: "running", placed: true };
      return { state: "failed", placed, ...(failure === undefined ? {} : { error: failure }) };
    case "creating":
      return { state: runs ? "running" : "pending", placed };
    default:
      // Made and, perhaps, being changed. Nobody starts it again when it is off.
      if (power === undefined || !OFF.has(power)) return { state: "running", placed: true };
      return {
        state: "failed",
        placed: true,
        error: { code: power, message: "it was switched off from outside or shut itself down" },
      };
  }
}

function failureOf(statuses: readonly InstanceViewStatus[]): AzureError | undefined {
  const failed = statuses.find((s) => /^ProvisioningState\/(failed|canceled)/i.test(s.code ?? ""));
  if (failed === undefined) return undefined;
  const [, , code = "Failed"] = failed.code?.split("/") ?? [];
  return { code, message: failed.message ?? failed.displayStatus ?? "Azure gives no reason" };
}

/** The second part of a status code, in lower case: `PowerState/running`. */
function partOfCode(statuses: readonly InstanceViewStatus[], kind: string): { readonly code: string } | undefined {
  const found = statuses.find((s) => s.code?.toLowerCase().startsWith(`${kind.toLowerCase()}/`));
  return found?.code === undefined ? undefined : { code: found.code.split("/")[1]?.toLowerCase() ?? "" };
}

/** Whether nothing is under way on a VM, so that it can be changed. */
export function isAtRest(vm: VirtualMachine): boolean {
  return vm.provisioningState === "Succeeded" && stateOf(vm).state === "running";
}
