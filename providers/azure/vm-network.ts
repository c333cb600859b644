import type { NetworkProfile, VirtualMachineNetworkInterfaceConfiguration } from "@azure/arm-compute";
import type { Candidate } from "./candidates.ts";
import type { AzureConfig } from "./config.ts";
import { nicName, publicIpName } from "./names.ts";

/** Newest of the versions that Compute can ask Network for. Source: REST reference, NetworkApiVersion. */
const NETWORK_API_VERSION = "2022-11-01";

/** Network interfaces that Azure makes with the VM and deletes with it. */
export function networkProfile(
  vm: string,
  { subnet }: Candidate,
  tags: Record<string, string>,
  config: AzureConfig,
): NetworkProfile {
  const subnets = [subnet, ...config.extraSubnets];
  return {
    networkApiVersion: NETWORK_API_VERSION,
    networkInterfaceConfigurations: subnets.map((id, at) => networkInterface(vm, id, at, tags, config)),
  };
}

function networkInterface(
  vm: string,
  subnet: string,
  at: number,
  tags: Record<string, string>,
  { securityGroup, acceleratedNetworking, publicIp }: AzureConfig,
): VirtualMachineNetworkInterfaceConfiguration {
  return {
    ...{ name: nicName(vm, at), primary: at === 0, deleteOption: "Delete", tags },
    ...(securityGroup === undefined ? {} : { networkSecurityGroup: { id: securityGroup } }),
    ...(acceleratedNetworking === undefined ? {} : { enableAcceleratedNetworking: acceleratedNetworking }),
    ipConfigurations: [
      {
        ...{ name: "ipconfig", primary: true, privateIPAddressVersion: "IPv4", subnet: { id: subnet } },
        ...(publicIp && at === 0 ? { publicIPAddressConfiguration: publicAddress(vm, tags) } : {}),
      },
    ],
  };
}

function publicAddress(vm: string, tags: Record<string, string>) {
  return {
    ...{ name: publicIpName(vm), deleteOption: "Delete", tags, publicIPAddressVersion: "IPv4" },
    // Standard ones are static, and closed until a security group opens them.
    ...{ publicIPAllocationMethod: "Static", sku: { name: "Standard", tier: "Regional" } },
  };
}
