import { badRequest, invalidParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import type { VmSize } from "../vm-sizes.ts";
import type { ChosenImage } from "./image-reference.ts";
import type { OsDiskRequest } from "./vm-storage.ts";

export interface SecurityRequest {
  readonly type: "Standard" | "TrustedLaunch" | "ConfidentialVM" | undefined;
  readonly secureBoot: boolean;
  readonly vTpm: boolean;
  readonly encryptionAtHost: boolean;
  readonly shown: Readonly<Record<string, Json>> | undefined;
}

export function readSecurity(body: Body): SecurityRequest {
  const type = body.choice("securityType", ["Standard", "TrustedLaunch", "ConfidentialVM"] as const);
  const uefi = body.child("uefiSettings");
  const [secureBoot, vTpm] = [uefi.flag("secureBootEnabled"), uefi.flag("vTpmEnabled")];
  const encryptionAtHost = body.flag("encryptionAtHost");
  if ((secureBoot !== undefined || vTpm !== undefined) && (type === undefined || type === "Standard")) {
    throw badRequest(
      "Parameter 'uefiSettings' can only be set when securityType is 'TrustedLaunch' or 'ConfidentialVM'.",
    );
  }
  const uefiSettings = { secureBootEnabled: secureBoot ?? false, vTpmEnabled: vTpm ?? false };
  const some = type !== undefined || encryptionAtHost !== undefined;
  return {
    ...{ type, secureBoot: secureBoot ?? false, vTpm: vTpm ?? false, encryptionAtHost: encryptionAtHost ?? false },
    shown: some
      ? {
          ...(type && { securityType: type }),
          ...(type !== undefined && type !== "Standard" && { uefiSettings }),
          ...(encryptionAtHost !== undefined && { encryptionAtHost }),
        }
      : undefined,
  };
}

/**
 * Whether size, image and disk can be what the security type says.
 * Source: learn.microsoft.com "Azure Confidential VM options", "Deploy a confidential VM with an ARM template", and the
 * texts of the refusals as users report them.
 */
export function checkSecurity(
  security: SecurityRequest,
  {
    size,
    image,
    osDisk,
  }: { readonly size: VmSize; readonly image: ChosenImage | undefined; readonly osDisk: OsDiskRequest },
): void {
  const { type } = security;
  const supported = image?.facts.securityType;
  if (size.confidential !== undefined && type !== "ConfidentialVM") {
    throw badRequest(
      `The VM size '${size.name}' is not supported for creation of VMs and Virtual Machine Scale Set with '${type ?? "<NULL>"}' security type.`,
    );
  }
  if (type === "ConfidentialVM" && size.confidential === undefined) {
    throw badRequest(
      `The VM size '${size.name}' is not supported for creation of VMs and Virtual Machine Scale Set with 'ConfidentialVM' security type.`,
    );
  }
  const { encryptionType } = osDisk;
  if (type !== "ConfidentialVM") {
    if (encryptionType !== undefined) {
      throw invalidParameter(
        "osDisk.managedDisk.securityProfile",
        "securityEncryptionType can be set only for Confidential VMs.",
      );
    }
    if (supported?.toLowerCase() === "confidentialvm" || (supported === "TrustedLaunch" && type !== "TrustedLaunch")) {
      throw badRequest(`The provided image requires the security type '${supported}'.`);
    }
    if (
      type === "TrustedLaunch" &&
      !/^(TrustedLaunch|TrustedLaunchSupported|TrustedLaunchAndConfidentialVmSupported)$/i.test(supported ?? "")
    ) {
      throw badRequest(
        "Use of 'TrustedLaunch' setting is not supported for the provided image. Please select Trusted Launch Supported Gen2 OS Image. For more information, see https://aka.ms/TrustedLaunch-FAQ.",
      );
    }
    return;
  }
  if (
    image !== undefined &&
    !/^(ConfidentialVM|ConfidentialVmSupported|TrustedLaunchAndConfidentialVmSupported)$/i.test(supported ?? "")
  ) {
    throw badRequest(
      "Use of 'ConfidentialVM' setting is not supported for the provided image. Please select Confidential VM Supported Gen2 OS Image. For more information, see https://aka.ms/ConfidentialVM-FAQ.",
    );
  }
  if (encryptionType === undefined) {
    throw invalidParameter(
      "osDisk.managedDisk.securityProfile.securityEncryptionType",
      "Required parameter 'osDisk.managedDisk.securityProfile.securityEncryptionType' is missing (null).",
    );
  }
  if (!security.vTpm) {
    throw invalidParameter(
      "securityProfile.uefiSettings.vTpmEnabled",
      "vTpmEnabled must be set to true for Confidential VMs.",
    );
  }
  if (encryptionType === "DiskWithVMGuestState" && !security.secureBoot) {
    throw invalidParameter(
      "securityProfile.uefiSettings.secureBootEnabled",
      "secureBootEnabled must be set to true when securityEncryptionType is 'DiskWithVMGuestState'.",
    );
  }
  if (encryptionType === "DiskWithVMGuestState" && security.encryptionAtHost) {
    throw badRequest("Encryption at host is not supported for VMs with confidential disk encryption.");
  }
}
