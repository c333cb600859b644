/** Actions that the credentials need on the resource group. */
export const GROUP_PERMISSIONS = [
  "Microsoft.Compute/virtualMachines/read",
  "Microsoft.Compute/virtualMachines/write",
  "Microsoft.Compute/virtualMachines/delete",
  "Microsoft.Compute/virtualMachines/retrieveBootDiagnosticsData/action",
  "Microsoft.Compute/disks/read",
  "Microsoft.Compute/disks/write",
  "Microsoft.Compute/disks/delete",
  "Microsoft.Network/networkInterfaces/read",
  "Microsoft.Network/networkInterfaces/write",
  "Microsoft.Network/networkInterfaces/join/action",
  "Microsoft.Network/networkInterfaces/delete",
  "Microsoft.Network/publicIPAddresses/read",
  "Microsoft.Network/publicIPAddresses/delete",
] as const;

/** With `publicIp`. */
export const PUBLIC_IP_PERMISSIONS = [
  "Microsoft.Network/publicIPAddresses/write",
  "Microsoft.Network/publicIPAddresses/join/action",
] as const;

/** All, with those that are needed elsewhere: on the network, on the image, and on the subscription. */
export const PERMISSIONS = [
  ...GROUP_PERMISSIONS,
  ...PUBLIC_IP_PERMISSIONS,
  "Microsoft.Network/virtualNetworks/subnets/read",
  "Microsoft.Network/virtualNetworks/subnets/join/action",
  "Microsoft.Network/networkSecurityGroups/read",
  "Microsoft.Network/networkSecurityGroups/join/action",
  "Microsoft.Compute/galleries/images/read",
  "Microsoft.Compute/galleries/images/versions/read",
  "Microsoft.Compute/skus/read",
  "Microsoft.Compute/locations/usages/read",
] as const;
