import type { OSProfile, VirtualMachine } from "@azure/arm-compute";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceClass } from "../../src/provider/index.ts";
import type { Candidate } from "./candidates.ts";
import type { AzureConfig } from "./config.ts";
import type { PodVmImage } from "./pod-vm-image.ts";
import { toAzureTags } from "./tags.ts";
import { storageProfile } from "./vm-disks.ts";
import { networkProfile } from "./vm-network.ts";

/** Characters of base64. Source: "User Data for Azure Virtual Machine"; peer-pods wire contract §3.5. */
export const USER_DATA_LIMIT_BASE64 = 65_536;

export interface VmRequest {
  readonly name: string;
  readonly wanted: InstanceClass;
  readonly candidate: Candidate;
  readonly image: PodVmImage;
  readonly config: AzureConfig;
  /** For an image that Azure sets up: it takes no VM without a key. */
  readonly sshPublicKey: () => Promise<string>;
}

/**
 * The VM with all its parts in one request, each of which goes when it goes: what a crash, a refusal or a failure leaves
 * half-made hangs on the VM.
 * @throws Fault invalid_argument for user-data that is too long
 */
export async function vmBody(request: VmRequest): Promise<VirtualMachine> {
  const { name, wanted, candidate, image, config } = request;
  const { zone, market, size } = candidate;
  const tags = toAzureTags(name, wanted.name, wanted.tags, config.tags);
  return {
    ...{ location: config.location, tags },
    ...(zone === undefined ? {} : { zones: [zone] }),
    ...(image.plan === undefined ? {} : { plan: image.plan }),
    hardwareProfile: { vmSize: size.name },
    storageProfile: storageProfile(name, wanted, image, config),
    networkProfile: networkProfile(name, candidate, tags, config),
    ...securityProfile(config),
    ...(image.specialised ? {} : { osProfile: await osProfile(name, config, request.sshPublicKey) }),
    userData: encodeUserData(wanted),
    diagnosticsProfile: { bootDiagnostics: { enabled: config.bootDiagnostics } },
    ...(market === "spot" ? spot(config) : {}),
    ...placement(config),
    ...identity(config),
  };
}

function encodeUserData({ userData, name }: InstanceClass): string {
  const text = Buffer.from(userData).toString("base64");
  if (text.length <= USER_DATA_LIMIT_BASE64) return text;
  const message = `user-data has ${userData.byteLength} bytes, ${text.length} as base64: Azure takes at most ${USER_DATA_LIMIT_BASE64}`;
  throw new Fault("invalid_argument", message, { provider: "azure", kind: "bad-request", name });
}

/** Source: REST reference of virtual machines, SecurityProfile and its examples for confidential VMs and trusted launch. */
function securityProfile(config: AzureConfig): Pick<VirtualMachine, "securityProfile"> {
  const { tee, trustedLaunch, secureBoot, vTpm, encryptionAtHost } = config;
  const securityType = tee !== "none" ? "ConfidentialVM" : trustedLaunch ? "TrustedLaunch" : undefined;
  const profile = {
    ...(securityType === undefined
      ? {}
      : { securityType, uefiSettings: { secureBootEnabled: secureBoot, vTpmEnabled: vTpm } }),
    ...(encryptionAtHost ? { encryptionAtHost } : {}),
  };
  return Object.keys(profile).length === 0 ? {} : { securityProfile: profile };
}

/** No password: one that exists can be guessed. Nothing is to be installed in the guest from outside either. */
async function osProfile(name: string, config: AzureConfig, sshPublicKey: () => Promise<string>): Promise<OSProfile> {
  const path = `/home/${config.sshUser}/.ssh/authorized_keys`;
  const keyData = config.sshPublicKey ?? (await sshPublicKey());
  return {
    ...{ computerName: name, adminUsername: config.sshUser, allowExtensionOperations: false },
    linuxConfiguration: {
      ...{ disablePasswordAuthentication: true, provisionVMAgent: false },
      ssh: { publicKeys: [{ path, keyData }] },
    },
  };
}

/** -1: up to the regular price, so that a VM ends for want of room only. */
function spot({ spotMaxPrice }: AzureConfig): Partial<VirtualMachine> {
  return { priority: "Spot", evictionPolicy: "Delete", billingProfile: { maxPrice: spotMaxPrice ?? -1 } };
}

function placement({ proximityGroup, hostGroup, capacityReservationGroup }: AzureConfig): Partial<VirtualMachine> {
  return {
    ...(proximityGroup === undefined ? {} : { proximityPlacementGroup: { id: proximityGroup } }),
    ...(hostGroup === undefined ? {} : { hostGroup: { id: hostGroup } }),
    ...(capacityReservationGroup === undefined
      ? {}
      : { capacityReservation: { capacityReservationGroup: { id: capacityReservationGroup } } }),
  };
}

function identity(config: AzureConfig): Partial<VirtualMachine> {
  if (config.identity === undefined) return {};
  return { identity: { type: "UserAssigned", userAssignedIdentities: { [config.identity]: {} } } };
}
