import { ArmError, badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import { parseResourceId } from "../resource-id.ts";
import type { DeleteOption, Disk } from "../resources.ts";
import type { ArmCall } from "../route.ts";

const STORAGE_TYPES = [
  ...["Standard_LRS", "Premium_LRS", "StandardSSD_LRS", "UltraSSD_LRS", "Premium_ZRS", "StandardSSD_ZRS"],
  "PremiumV2_LRS",
] as const;
const CACHING = ["None", "ReadOnly", "ReadWrite"] as const;

export interface OsDiskRequest {
  readonly createOption: "FromImage" | "Attach";
  readonly name: string | undefined;
  readonly existing: Disk | undefined;
  readonly sizeGiB: number | undefined;
  readonly deleteOption: DeleteOption;
  readonly storageType: string;
  readonly encryptionType: "VMGuestStateOnly" | "DiskWithVMGuestState" | "NonPersistedTPM" | undefined;
  readonly ephemeral: boolean;
  readonly shown: Readonly<Record<string, Json>>;
}
export interface DataDiskRequest {
  readonly lun: number;
  readonly name: string | undefined;
  readonly existing: Disk | undefined;
  readonly sizeGiB: number;
  readonly storageType: string;
  readonly deleteOption: DeleteOption;
  readonly shown: Readonly<Record<string, Json>>;
}

export function readOsDisk(call: ArmCall, body: Body): OsDiskRequest {
  const createOption = body.choice("createOption", ["FromImage", "Attach"] as const);
  if (createOption === undefined) throw missingParameter("osDisk.createOption");
  const name = body.text("name");
  if (name !== undefined) checkDiskName(name);
  const osType = body.choice("osType", ["Linux", "Windows"] as const);
  const caching = body.choice("caching", CACHING);
  const writeAccelerator = body.flag("writeAcceleratorEnabled");
  const sizeGiB = body.number("diskSizeGB");
  if (sizeGiB !== undefined && (sizeGiB < 1 || sizeGiB > 4095)) {
    throw invalidParameter(
      "osDisk.diskSizeGB",
      `The value '${sizeGiB}' of parameter 'osDisk.diskSizeGB' is out of range. The value must be between 1 and 4095.`,
    );
  }
  const deleteOption = body.choice("deleteOption", ["Delete", "Detach"] as const);
  const diff = body.child("diffDiskSettings");
  const ephemeral = diff.choice("option", ["Local"] as const) === "Local";
  const placement = diff.choice("placement", ["CacheDisk", "ResourceDisk", "NvmeDisk"] as const);
  if (ephemeral && caching !== "ReadOnly") {
    throw invalidParameter("osDisk.caching", "The caching of an ephemeral OS disk must be 'ReadOnly'.");
  }
  if (ephemeral && deleteOption === "Detach") {
    throw invalidParameter("osDisk.deleteOption", "DeleteOption 'Detach' is not supported for ephemeral OS disks.");
  }
  const managed = body.child("managedDisk");
  const storageType = managed.choice("storageAccountType", STORAGE_TYPES);
  if (storageType === "UltraSSD_LRS" || storageType === "PremiumV2_LRS") {
    throw badRequest(`StorageAccountType ${storageType} cannot be used with an OS disk.`);
  }
  const encryptionSet = managed.has("diskEncryptionSet") ? managed.child("diskEncryptionSet").need("id") : undefined;
  if (encryptionSet !== undefined) throw missing(encryptionSet, "Disk encryption set");
  const security = managed.child("securityProfile");
  const encryptionType = security.choice("securityEncryptionType", [
    ...(["VMGuestStateOnly", "DiskWithVMGuestState", "NonPersistedTPM"] as const),
  ]);
  if (security.has("diskEncryptionSet")) {
    throw missing(security.child("diskEncryptionSet").need("id"), "Disk encryption set");
  }
  const id = managed.text("id");
  const existing = id === undefined ? undefined : attachable(call, id);
  if (createOption === "Attach" && existing === undefined) throw missingParameter("osDisk.managedDisk.id");
  if (
    createOption === "FromImage" &&
    id !== undefined &&
    call.cloud.find("Microsoft.Compute/virtualMachines", call.id) === undefined
  ) {
    throw invalidParameter("osDisk.managedDisk.id", "Parameter 'osDisk.managedDisk.id' is not allowed.");
  }
  return {
    ...{ createOption, name, existing, sizeGiB, ephemeral, encryptionType },
    ...{ deleteOption: deleteOption ?? (ephemeral ? "Delete" : "Detach"), storageType: storageType ?? "Premium_LRS" },
    shown: {
      ...{ osType: osType ?? "Linux", createOption, caching: caching ?? "ReadWrite" },
      ...(writeAccelerator !== undefined && { writeAcceleratorEnabled: writeAccelerator }),
      ...(ephemeral && { diffDiskSettings: { option: "Local", ...(placement && { placement }) } }),
    },
  };
}

export function readDataDisks(
  call: ArmCall,
  storage: Body,
  where: { readonly location: string; readonly zones: readonly string[] },
): DataDiskRequest[] {
  const luns = new Set<number>();
  return storage.items("dataDisks").map((body) => {
    const lun = body.number("lun");
    if (lun === undefined) throw missingParameter("dataDisk.lun");
    if (lun < 0 || lun > 63)
      throw invalidParameter("dataDisk.lun", `The value '${lun}' of parameter 'dataDisk.lun' is out of range.`);
    if (luns.has(lun)) throw invalidParameter("dataDisk.lun", `The lun '${lun}' is used by more than one data disk.`);
    luns.add(lun);
    const createOption = body.choice("createOption", ["Empty", "Attach"] as const);
    if (createOption === undefined) throw missingParameter("dataDisk.createOption");
    const name = body.text("name");
    if (name !== undefined) checkDiskName(name);
    const caching = body.choice("caching", CACHING) ?? "None";
    const deleteOption = body.choice("deleteOption", ["Delete", "Detach"] as const) ?? "Detach";
    const managed = body.child("managedDisk");
    const storageType = managed.choice("storageAccountType", STORAGE_TYPES) ?? "Premium_LRS";
    const id = managed.text("id");
    const existing = id === undefined ? undefined : attachable(call, id);
    for (const ignored of ["writeAcceleratorEnabled", "toBeDetached", "diskIOPSReadWrite", "diskMBpsReadWrite"])
      body.keep(ignored);
    const sizeGiB = body.number("diskSizeGB") ?? existing?.sizeGiB;
    if (sizeGiB === undefined) throw missingParameter("dataDisk.diskSizeGB");
    if (createOption === "Attach" && existing === undefined) throw missingParameter("dataDisk.managedDisk.id");
    if (existing !== undefined && existing.location !== where.location) {
      throw badRequest(`Disk ${existing.id} is in ${existing.location}, the virtual machine in ${where.location}.`);
    }
    if (existing !== undefined && existing.zones.length > 0 && existing.zones[0] !== where.zones[0]) {
      throw badRequest(
        `Disk ${existing.id} cannot be attached to the VM because it is not in zone '${where.zones[0] ?? ""}'.`,
      );
    }
    return {
      lun,
      name,
      existing,
      sizeGiB,
      storageType,
      deleteOption,
      shown: { lun, createOption, caching, deleteOption },
    };
  });
}

/** @throws ArmError when it is not there or is somebody else's */
function attachable(call: ArmCall, id: string): Disk {
  const disk = call.cloud.find("Microsoft.Compute/disks", id);
  if (disk === undefined) throw missing(id, "Disk");
  if (disk.vmId !== undefined && disk.vmId.toLowerCase() !== call.id.toLowerCase()) {
    const message = `Cannot attach data disk '${disk.name}' to VM '${call.params.vmName}' because the disk is currently being attached to '${disk.vmId}'.`;
    throw new ArmError(409, "AttachDiskWhileBeingDetached", message);
  }
  if (disk.blob !== undefined) {
    const message = `Cannot perform operation on disk '${disk.name}' while it has an active shared access signature. Call End Get Access on the disk first.`;
    throw new ArmError(409, "OperationNotAllowed", message);
  }
  return disk;
}

function missing(id: string, what: string): ArmError {
  return new ArmError(404, "ResourceNotFound", `${what} ${parseResourceId(id)?.names.at(-1) ?? id} is not found.`);
}

export function checkDiskName(name: string): void {
  if (name.length <= 80 && /^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$/.test(name)) return;
  const message = `The entity name 'osDisk.name' is invalid according to its validation rule: ^[^_\\W][\\w-._]{0,79}(?<![-.])$.`;
  throw new ArmError(400, "InvalidParameter", message, { target: "osDisk.name" });
}
