import type { DataDisk, ManagedDiskParameters, StorageProfile } from "@azure/arm-compute";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceClass } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";
import { dataDiskName, osDiskName } from "./names.ts";
import type { PodVmImage } from "./pod-vm-image.ts";

/** Every disk goes with the VM, those of the image included. */
export function storageProfile(
  vm: string,
  wanted: InstanceClass,
  image: PodVmImage,
  config: AzureConfig,
): StorageProfile {
  const asked = wanted.rootDiskGiB ?? config.rootDiskGiB;
  const { volumes = [] } = wanted;
  const dataDisks = [
    ...volumeDisks(volumes, image),
    ...imageDisks(vm, image, config),
    ...ownDisks(vm, Math.max(volumes.length - 1, ...image.dataLuns) + 1, config),
  ];
  return {
    imageReference: image.reference,
    osDisk: {
      ...{ name: osDiskName(vm), createOption: "FromImage", deleteOption: "Delete" },
      ...(asked === undefined ? {} : { diskSizeGB: Math.max(asked, image.diskGiB) }),
      managedDisk: { storageAccountType: config.rootDiskType, ...rootEncryption(config) },
    },
    ...(dataDisks.length === 0 ? {} : { dataDisks }),
  };
}

const ENCRYPTION: Readonly<Record<AzureConfig["encryption"], string>> = {
  "guest-state": "VMGuestStateOnly",
  disk: "DiskWithVMGuestState",
  none: "NonPersistedTPM",
};

/** Source: REST reference, VMDiskSecurityProfile: a confidential VM's own encryption has its own place for the key. */
function rootEncryption({ tee, encryption, diskEncryptionSet: id }: AzureConfig): ManagedDiskParameters {
  const key = id === undefined ? {} : { diskEncryptionSet: { id } };
  if (tee === "none") return key;
  const securityEncryptionType = ENCRYPTION[encryption];
  return encryption === "disk"
    ? { securityProfile: { securityEncryptionType, ...key } }
    : { securityProfile: { securityEncryptionType }, ...key };
}

function imageDisks(vm: string, { dataLuns }: PodVmImage, config: AzureConfig): readonly DataDisk[] {
  return dataLuns.map((lun) => ({ ...dataDisk(vm, lun, config), createOption: "FromImage" }));
}

/** They are somebody's: the VM's end only lets go of them. A LUN is the place in the list, as guests count on it. */
function volumeDisks(volumes: readonly string[], { dataLuns }: PodVmImage): readonly DataDisk[] {
  const taken = dataLuns.find((lun) => lun < volumes.length);
  if (taken !== undefined) {
    const message = `the image has a data disk of its own at LUN ${taken}, which is a volume's of the pod: use an image without`;
    throw new Fault("failed_precondition", message, { provider: "azure", kind: "setup" });
  }
  return volumes.map((id, lun) => ({ lun, createOption: "Attach", deleteOption: "Detach", managedDisk: { id } }));
}

/** @param first LUN that is free */
function ownDisks(vm: string, first: number, config: AzureConfig): readonly DataDisk[] {
  return config.dataDisksGiB.map((diskSizeGB, at) => ({
    ...dataDisk(vm, first + at, config),
    ...{ createOption: "Empty", diskSizeGB },
  }));
}

function dataDisk(vm: string, lun: number, config: AzureConfig): Omit<DataDisk, "createOption"> {
  // A confidential VM's key is for its root disk alone.
  const shared = config.tee === "none" || config.encryption !== "disk";
  const key =
    config.diskEncryptionSet === undefined || !shared ? {} : { diskEncryptionSet: { id: config.diskEncryptionSet } };
  return {
    ...{ lun, name: dataDiskName(vm, lun), deleteOption: "Delete" },
    managedDisk: { storageAccountType: config.dataDiskType, ...key },
  };
}
