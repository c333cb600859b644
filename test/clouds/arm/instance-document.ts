import type { JsonObject } from "./body.ts";
import { hardwareAddress } from "./network/interfaces.ts";
import { parseResourceId } from "./resource-id.ts";
import type { VirtualMachine } from "./resources.ts";
import type { Subscription } from "./subscription.ts";

/** From which version on a VM's user data is in the document. Source: IMDS, "Get user data". */
const USER_DATA_SINCE = "2021-01-01";

/** What `/metadata/instance` says of a VM. Source: learn.microsoft.com "Azure Instance Metadata Service", instance metadata. */
export function instanceDocument(cloud: Subscription, vm: VirtualMachine, version: string): JsonObject {
  const storage = (vm.properties.storageProfile ?? {}) as JsonObject;
  const image = (storage.imageReference ?? {}) as JsonObject;
  const osProfile = (vm.properties.osProfile ?? {}) as JsonObject;
  const security = (vm.properties.securityProfile ?? {}) as JsonObject;
  const uefi = (security.uefiSettings ?? {}) as JsonObject;
  const tagsList = [...vm.tags].map(([name, value]) => ({ name, value }));
  return {
    compute: {
      ...{ azEnvironment: "AzurePublicCloud", customData: "", evictionPolicy: vm.properties.evictionPolicy ?? "" },
      ...{ isHostCompatibilityLayerVm: "false", licenseType: "", location: vm.location, name: vm.name },
      offer: image.offer ?? "",
      osProfile: {
        adminUsername: osProfile.adminUsername ?? "",
        computerName: vm.computerName ?? "",
        disablePasswordAuthentication: "true",
      },
      ...{ osType: "Linux", placementGroupId: "", plan: { name: "", product: "", publisher: "" } },
      ...{ platformFaultDomain: "0", platformUpdateDomain: "0", priority: vm.spot ? "Spot" : "Regular" },
      ...{ provider: "Microsoft.Compute", publicKeys: [], publisher: image.publisher ?? "" },
      ...{ resourceGroupName: parseResourceId(vm.id)?.group ?? "", resourceId: vm.id },
      securityProfile: {
        ...{
          secureBootEnabled: String(uefi.secureBootEnabled ?? false),
          virtualTpmEnabled: String(uefi.vTpmEnabled ?? false),
        },
        ...{ encryptionAtHost: String(security.encryptionAtHost ?? false), securityType: security.securityType ?? "" },
      },
      ...{ sku: image.sku ?? "", subscriptionId: cloud.id },
      tags: tagsList.map(({ name, value }) => `${name}:${value}`).join(";"),
      tagsList,
      ...(version >= USER_DATA_SINCE && { userData: vm.userData ?? "" }),
      ...{ version: image.exactVersion ?? "", vmId: vm.vmId, vmScaleSetName: "", vmSize: vm.size.name },
      zone: vm.zones[0] ?? "",
    },
    network: {
      interface: vm.nics.map(({ id }) => {
        const nic = cloud.find("Microsoft.Network/networkInterfaces", id);
        const ips = nic?.ipConfigurations ?? [];
        const [address, length] = (cloud.subnet(ips[0]?.subnetId ?? "")?.subnet.prefix ?? "0.0.0.0/0").split("/");
        return {
          ipv4: {
            ipAddress: ips.map((c) => ({
              privateIpAddress: c.address,
              publicIpAddress:
                (c.publicIpId && cloud.find("Microsoft.Network/publicIPAddresses", c.publicIpId)?.address) || "",
            })),
            subnet: [{ address, prefix: length }],
          },
          ipv6: { ipAddress: [] },
          macAddress: nic === undefined ? "" : hardwareAddress(nic).replaceAll("-", ""),
        };
      }),
    },
  };
}
