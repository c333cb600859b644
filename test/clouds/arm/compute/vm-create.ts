import { randomUUID } from "node:crypto";
import { ArmError } from "../arm-error.ts";
import { etag, newCommon } from "../lifecycle.ts";
import type { Operation } from "../operation.ts";
import { parseResourceId } from "../resource-id.ts";
import type { AttachedDisk, Disk, VirtualMachine } from "../resources.ts";
import type { ArmCall, ArmReply } from "../route.ts";
import type { Subscription } from "../subscription.ts";
import type { VmSize } from "../vm-sizes.ts";
import { attachNics, type NetworkRequest, readNetworkProfile } from "./vm-network.ts";
import { readVmRequest, type VmRequest } from "./vm-request.ts";
import { renderVm } from "./vm-view.ts";

/** For how long Network keeps an interface for a VM that could not be made. */
const RESERVED_MS = 180_000;

/** The first PUT of a VM. */
export async function createVm(call: ArmCall): Promise<ArmReply> {
  const { cloud } = call;
  let request: VmRequest;
  try {
    request = readVmRequest(call);
    checkCapacity(cloud, request);
    call.commit();
  } catch (e) {
    if (cloud.knobs.orphanNics) leaveNics(call);
    throw e;
  }
  const vm = newVm(call, request);
  cloud.put(vm);
  vm.nics = attachNics(call, request.network, { location: request.location, zones: request.zones, vmId: vm.id });
  vm.version++;
  const shortage = allocationFailure(cloud, request);
  const stuck = cloud.knobs.stuckCreations > 0;
  if (stuck) cloud.knobs.stuckCreations--;
  vm.operation = beginCreation(call, vm, { shortage, stuck });
  const body = renderVm(vm);
  const tag = etag(vm);
  if (shortage === undefined) await launch(cloud, vm, request);
  return { status: 201, body, operation: vm.operation, headers: { etag: tag } };
}

/** Compute makes interfaces before it looks at the rest: they stay when it then refuses. Source: CAA#997, PR#1204. */
function leaveNics(call: ArmCall): void {
  const properties = call.body.child("properties");
  let network: NetworkRequest;
  const location = call.body.text("location") ?? "";
  try {
    network = readNetworkProfile(call, properties, location);
  } catch {
    return; // refused for the interfaces themselves: none was made
  }
  for (const { id } of attachNics(call, { ...network, existing: [] }, { location, zones: [], vmId: undefined })) {
    const nic = call.cloud.find("Microsoft.Network/networkInterfaces", id);
    if (nic !== undefined) nic.reservedFor = { vmId: call.id, until: call.cloud.now() + RESERVED_MS };
  }
}

/** What is refused at once. Capacity itself shows only while the VM is being made. */
function checkCapacity(cloud: Subscription, { size, location, zones, spot }: VmRequest): void {
  const [zone] = zones;
  const offered = size.zones[location];
  const { restricted } = cloud.knobs;
  const closed = restricted.has(size.name) || (zone !== undefined && restricted.has(`${size.name}/${zone}`));
  if (offered === undefined || closed || (zone !== undefined && !offered.includes(zone))) {
    const where = zone === undefined ? `location '${location}'` : `zone '${zone}' of location '${location}'`;
    const message = `The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: ${size.name}' is currently not available in ${where}. Please try another size or deploy to a different location or different zone. See https://aka.ms/azureskunotavailable for details.`;
    throw new ArmError(409, "SkuNotAvailable", message);
  }
  for (const name of spot ? ["lowPriorityCores"] : [size.family, "cores"]) checkQuota(cloud, name, { size, location });
}

function checkQuota(
  cloud: Subscription,
  name: string,
  { size, location }: { readonly size: VmSize; readonly location: string },
): void {
  const limit = cloud.knobs.quota.get(name);
  const used = cloud.coresInUse(name, location);
  if (limit === undefined || used + size.vcpus <= limit) return;
  const what = name === "cores" ? "Total Regional" : name === "lowPriorityCores" ? "LowPriorityCores" : `${name}`;
  const needed = used + size.vcpus;
  const message = `Operation could not be completed as it results in exceeding approved ${what} Cores quota. Additional details - Deployment Model: Resource Manager, Location: ${location}, Current Limit: ${limit}, Current Usage: ${used}, Additional Required: ${size.vcpus}, (Minimum) New Limit Required: ${needed}. Submit a request for Quota increase at https://aka.ms/ProdportalCRP/#blade/Microsoft_Azure_Capacity/UsageAndQuota.ReactView by specifying parameters listed in the 'Details' section for deployment to succeed. Please read more about quota limits at https://docs.microsoft.com/en-us/azure/azure-supportability/per-vm-quota-requests`;
  throw new ArmError(409, "OperationNotAllowed", message);
}

export function allocationFailure(
  cloud: Subscription,
  { size, zones, spot }: { readonly size: VmSize; readonly zones: readonly string[]; readonly spot: boolean },
): ArmError | undefined {
  const [zone] = zones;
  const { short } = cloud.knobs;
  const keys = [`${size.name}/${zone ?? ""}`, `*/${zone ?? ""}`, `${size.name}/*`, "*"];
  if (!keys.some((key) => short.has(key) || (spot && short.has(`${key}/spot`)))) return undefined;
  if (zone !== undefined) {
    const message =
      "Allocation failed. We do not have sufficient capacity for the requested VM size in this zone. Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance";
    return new ArmError(409, "ZonalAllocationFailed", message);
  }
  const message =
    "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance";
  return new ArmError(409, "AllocationFailed", message);
}

function newVm(call: ArmCall, request: VmRequest): VirtualMachine {
  const { cloud } = call;
  const { image, osProfile } = request;
  const osDisk = newOsDisk(call, request);
  const dataDisks = request.dataDisks.map((disk): AttachedDisk => {
    const made =
      disk.existing ??
      newDisk(call, disk.name ?? `${call.params.vmName}_DataDisk_${disk.lun}`, { ...request, ...disk });
    Object.assign(made, { vmId: call.id, diskState: "Attached" });
    return { id: made.id, lun: disk.lun, deleteOption: disk.deleteOption };
  });
  const managed = (id: string, storageAccountType: string) => ({ id, storageAccountType });
  return {
    ...newCommon(cloud, call.id, request),
    ...{ type: "Microsoft.Compute/virtualMachines", size: request.size, vmId: randomUUID(), shown: request.shown },
    ...{ userData: request.userData, customData: osProfile?.customData, computerName: osProfile?.computerName },
    awaitsGuest: osProfile !== undefined && cloud.host?.guestsReport === true,
    ...{ spot: request.spot, guestReady: false, nics: [], dataDisks, power: "starting", error: undefined },
    osDisk: { id: osDisk.id, lun: undefined, deleteOption: request.osDisk.deleteOption },
    ...{ bootDiagnostics: request.bootDiagnostics, console: "", endedAt: undefined },
    properties: {
      ...request.properties,
      storageProfile: {
        ...(image && { imageReference: image.shown }),
        osDisk: {
          ...{ name: osDisk.name, ...request.osDisk.shown, diskSizeGB: osDisk.sizeGiB },
          deleteOption: request.osDisk.deleteOption,
          managedDisk: {
            ...managed(osDisk.id, request.osDisk.storageType),
            ...(request.osDisk.encryptionType && {
              securityProfile: { securityEncryptionType: request.osDisk.encryptionType },
            }),
          },
        },
        dataDisks: request.dataDisks.map((d, i) => ({
          ...{ ...d.shown, name: dataDisks[i]?.id.split("/").at(-1) ?? "", diskSizeGB: d.sizeGiB, toBeDetached: false },
          managedDisk: managed(dataDisks[i]?.id ?? "", d.storageType),
        })),
        ...(request.properties.diskControllerType && { diskControllerType: request.properties.diskControllerType }),
      },
      ...(osProfile && { osProfile: osProfile.shown }),
      diskControllerType: undefined,
    },
  };
}

function newOsDisk(call: ArmCall, request: VmRequest): Disk {
  const { osDisk, image } = request;
  const made =
    osDisk.existing ??
    newDisk(call, osDisk.name ?? `${call.params.vmName}_OsDisk_1_${call.cloud.random(16)}`, {
      ...{ location: request.location, zones: request.zones, storageType: osDisk.storageType },
      ...{ sizeGiB: osDisk.sizeGiB ?? image?.facts.sizeGiB ?? 30, tags: request.tags, image: request.image },
    });
  Object.assign(made, { vmId: call.id, diskState: "Attached" });
  return made;
}

/** A disk that is made with the VM. It gets the VM's tags. Source: azurerm#8162, azure-sdk-for-js#17787. */
function newDisk(
  call: ArmCall,
  name: string,
  more: Pick<VmRequest, "location" | "zones" | "tags"> & {
    readonly sizeGiB: number;
    readonly storageType: string;
    readonly image?: VmRequest["image"];
  },
): Disk {
  const { cloud } = call;
  // CRP writes the group in capitals in the ids of the disks that it makes.
  const group = parseResourceId(call.id)?.group.toUpperCase() ?? "";
  const id = `${cloud.groupId(group)}/providers/Microsoft.Compute/disks/${name}`;
  if (cloud.find("Microsoft.Compute/disks", id) !== undefined) {
    const message = `Disk ${name} already exists in resource group ${group}. Only CreateOption.Attach is supported.`;
    throw new ArmError(409, "ConflictingUserInput", message, { target: "disks" });
  }
  const disk: Disk = {
    ...newCommon(cloud, id, more),
    ...{ type: "Microsoft.Compute/disks", sizeGiB: more.sizeGiB, osType: more.image?.facts.osType, state: "Succeeded" },
    ...{
      diskState: "Attached",
      vmId: call.id,
      content: more.image?.facts.content,
      blob: undefined,
      uploadBytes: undefined,
    },
    ...{ generation: more.image?.facts.generation, securityType: undefined },
    shown: { sku: { name: more.storageType, tier: more.storageType.split("_")[0] } },
    properties: { creationData: { createOption: more.image === undefined ? "Empty" : "FromImage" } },
  };
  cloud.put(disk);
  return disk;
}

function beginCreation(
  call: ArmCall,
  vm: VirtualMachine,
  { shortage, stuck }: { readonly shortage: ArmError | undefined; readonly stuck: boolean },
): Operation {
  const { cloud } = call;
  const { createMs, guestReadyMs } = cloud.knobs;
  const deadline = cloud.now() + guestReadyMs;
  return cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: vm.location, apiVersion: call.apiVersion },
    dueAt: stuck ? undefined : cloud.now() + createMs,
    ready: () => !vm.awaitsGuest || vm.guestReady || shortage !== undefined || cloud.now() >= deadline,
    finish: () => {
      if (shortage !== undefined) throw shortage;
      if (vm.awaitsGuest && !vm.guestReady) throw provisioningTimedOut(vm);
      Object.assign(vm, { state: "Succeeded", guestReady: true, operation: undefined });
      if (vm.power === "starting") vm.power = "running";
      return undefined;
    },
    fail: (error) => {
      if (vm.state !== "Creating") return;
      Object.assign(vm, { state: "Failed", operation: undefined, error: { code: error.code, message: error.message } });
      if (shortage !== undefined) vm.power = "unknown";
    },
  });
}

function provisioningTimedOut(vm: VirtualMachine): ArmError {
  const message = `OS Provisioning for VM '${vm.name}' did not finish in the allotted time. The VM may still finish provisioning successfully. Please check provisioning state later. For details on how to check current provisioning state of Linux VMs, refer to https://aka.ms/LinuxVMLifecycle.`;
  return new ArmError(409, "OSProvisioningTimedOut", message);
}

async function launch(cloud: Subscription, vm: VirtualMachine, request: VmRequest): Promise<void> {
  if (cloud.host === undefined) return;
  const nics = vm.nics.flatMap(({ id }) => cloud.find("Microsoft.Network/networkInterfaces", id) ?? []);
  const address = await cloud.host.launch({
    ...{ id: vm.id, vmId: vm.vmId, name: vm.name, size: vm.size.name },
    ...{ vcpus: vm.size.vcpus, memoryMiB: vm.size.memoryGB * 1024 },
    ...{ userData: Buffer.from(vm.userData ?? "", "base64"), image: request.image?.facts.content },
    osDiskGiB: cloud.find("Microsoft.Compute/disks", vm.osDisk.id)?.sizeGiB ?? 30,
    dataDisks: vm.dataDisks.flatMap(({ id, lun }) => {
      const disk = cloud.find("Microsoft.Compute/disks", id);
      return disk === undefined || lun === undefined ? [] : [{ name: disk.name, lun, sizeGiB: disk.sizeGiB }];
    }),
    nics: nics.map((nic) => ({ id: nic.id, address: nic.ipConfigurations[0]?.address ?? "" })),
  });
  const [primary] = nics[0]?.ipConfigurations ?? [];
  if (address !== undefined && primary !== undefined) primary.address = address;
  if (vm.power === "starting") vm.power = "running";
}
