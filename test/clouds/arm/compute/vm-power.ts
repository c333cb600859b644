import { ArmError } from "../arm-error.ts";
import type { PowerState, VirtualMachine } from "../resources.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_GROUP, type Route } from "../route.ts";
import { markedForDeletion } from "./marked.ts";
import { allocationFailure } from "./vm-create.ts";

const TYPE = "Microsoft.Compute/virtualMachines";
const ONE = `${IN_GROUP}/${COMPUTE}/virtualMachines/{vmName}`;

interface Step {
  readonly now: PowerState;
  readonly after: PowerState;
  /** What is done to the machine behind it. */
  readonly run: (call: ArmCall, vm: VirtualMachine) => Promise<void>;
}

const STOP: Step["run"] = async ({ cloud }, vm) => cloud.host?.stop(vm.id);
const START: Step["run"] = async ({ cloud }, vm) => cloud.host?.start(vm.id);
const STEPS: Readonly<Record<string, Step>> = {
  PowerOff: { now: "stopping", after: "stopped", run: STOP },
  Deallocate: { now: "deallocating", after: "deallocated", run: STOP },
  Start: { now: "starting", after: "running", run: START },
  Restart: {
    ...{ now: "running", after: "running" },
    run: async (call, vm) => {
      await STOP(call, vm);
      await START(call, vm);
    },
  },
};

async function change(call: ArmCall, name: string, step: Step): Promise<ArmReply> {
  const { cloud } = call;
  const vm = cloud.need(TYPE, call.id.slice(0, call.id.lastIndexOf("/")));
  if (vm.state === "Deleting") throw markedForDeletion(vm);
  if (vm.operation !== undefined) {
    const message =
      "The request failed due to conflict with a concurrent request. To resolve it, please refer to https://aka.ms/activitylog to get more details on the conflicting requests.";
    throw new ArmError(409, "Conflict", message);
  }
  if (name === "Deallocate" && JSON.stringify(vm.properties.storageProfile ?? "").includes("diffDiskSettings")) {
    const message = "This operation is not supported for VMs or VM Scale Set instances using an ephemeral OS disk.";
    throw new ArmError(409, "OperationNotAllowed", message);
  }
  call.commit();
  const failure = name === "Start" && vm.power === "deallocated" ? allocationFailure(cloud, vm) : undefined;
  const before = vm.power;
  Object.assign(vm, { power: step.now, state: "Updating" });
  vm.version++;
  const operation = cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: vm.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + cloud.knobs.powerMs,
    finish: () => {
      if (failure !== undefined) throw failure;
      Object.assign(vm, { power: step.after, state: "Succeeded", operation: undefined });
      return undefined;
    },
    fail: () => {
      if (vm.state === "Updating") Object.assign(vm, { power: before, state: "Failed", operation: undefined });
    },
  });
  vm.operation = operation;
  if (failure === undefined) await step.run(call, vm);
  return { status: 202, operation };
}

/** Start, stop and restart. */
export const POWER_ROUTES: readonly Route[] = Object.entries(STEPS).map(([name, step]) => {
  const verb = name.charAt(0).toLowerCase() + name.slice(1);
  return {
    ...{ name: `VirtualMachines_${name}`, method: "POST", path: `${ONE}/${verb}`, action: `${TYPE}/${verb}/action` },
    handle: (call) => change(call, name, step),
  };
});
