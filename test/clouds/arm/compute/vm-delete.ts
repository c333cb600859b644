import { ArmError } from "../arm-error.ts";
import { releaseNic } from "../network/interfaces.ts";
import type { VirtualMachine } from "../resources.ts";
import type { ArmCall, ArmReply } from "../route.ts";
import type { Subscription } from "../subscription.ts";

/** DELETE of a VM; what it was given deleteOption Delete for goes with it. */
export async function deleteVm(call: ArmCall): Promise<ArmReply> {
  const { cloud } = call;
  const force = call.query.get("forcedeletion");
  if (force !== undefined && !/^(true|false)$/i.test(force)) {
    throw new ArmError(400, "InvalidParameter", `The value '${force}' of parameter 'forceDeletion' is invalid.`);
  }
  call.commit();
  const vm = cloud.find("Microsoft.Compute/virtualMachines", call.id);
  if (vm === undefined) return { status: 204 };
  if (vm.state === "Deleting" && vm.operation !== undefined) return { status: 202, operation: vm.operation };
  const before = vm.operation;
  vm.state = "Deleting";
  vm.version++;
  vm.endedAt ??= cloud.now();
  before?.abort(
    new ArmError(409, "OperationPreempted", "Operation execution has been preempted by a more recent operation."),
    cloud.now(),
    "Canceled",
  );
  let removed = cloud.host === undefined;
  const operation = cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: vm.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + cloud.knobs.deleteMs,
    // Its address is nobody else's before.
    ready: () => removed,
    finish: () => {
      removeVm(cloud, vm);
      return undefined;
    },
  });
  vm.operation = operation;
  await cloud.host?.remove(vm.id);
  removed = true;
  return { status: 202, operation };
}

function removeVm(cloud: Subscription, vm: VirtualMachine): void {
  cloud.remove(vm);
  for (const { id, deleteOption } of vm.nics) {
    const nic = cloud.find("Microsoft.Network/networkInterfaces", id);
    if (nic === undefined) continue;
    nic.vmId = undefined;
    if (deleteOption !== "Delete") continue;
    releaseNic(cloud, nic);
    cloud.remove(nic);
    for (const { publicIpId } of nic.ipConfigurations) {
      const ip = publicIpId === undefined ? undefined : cloud.find("Microsoft.Network/publicIPAddresses", publicIpId);
      if (ip?.deleteOption === "Delete") cloud.remove(ip);
    }
  }
  for (const { id, deleteOption } of [vm.osDisk, ...vm.dataDisks]) {
    const disk = cloud.find("Microsoft.Compute/disks", id);
    if (disk === undefined) continue;
    if (deleteOption === "Delete") cloud.remove(disk);
    else Object.assign(disk, { vmId: undefined, diskState: "Unattached" });
  }
}
