import { ArmError, badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import { checkedTags } from "../lifecycle.ts";
import { missingReference, newNic, securityGroupOf, subnetIsFull } from "../network/interfaces.ts";
import { checkPublicIpQuota, newPublicIp } from "../network/public-ips.ts";
import { parseResourceId } from "../resource-id.ts";
import type { AttachedNic, DeleteOption, IpConfiguration, NetworkInterface, Subnet } from "../resources.ts";
import type { ArmCall } from "../route.ts";
import type { Subscription } from "../subscription.ts";

interface PublicIpRequest {
  readonly name: string;
  readonly sku: Json;
  readonly tags: ReadonlyMap<string, string> | undefined;
  readonly deleteOption: DeleteOption;
  readonly properties: Readonly<Record<string, Json>>;
}
/** An interface that is to be made with the VM. */
interface InlineNic {
  readonly name: string;
  readonly tags: ReadonlyMap<string, string> | undefined;
  readonly primary: boolean | undefined;
  readonly deleteOption: DeleteOption;
  readonly securityGroupId: string | undefined;
  readonly properties: Readonly<Record<string, Json>>;
  readonly ips: readonly {
    readonly name: string;
    readonly primary: boolean;
    readonly subnet: Subnet;
    readonly publicIp: PublicIpRequest | undefined;
  }[];
}
export interface NetworkRequest {
  readonly existing: readonly AttachedNic[];
  readonly inline: readonly InlineNic[];
  readonly count: number;
}

/** Reads `networkProfile`: interfaces that are there, or what to make. @throws ArmError as Compute and Network refuse it */
export function readNetworkProfile(call: ArmCall, properties: Body, location: string): NetworkRequest {
  if (!properties.has("networkProfile")) throw missingParameter("networkProfile");
  const body = properties.child("networkProfile");
  const apiVersion = body.choice("networkApiVersion", ["2020-11-01", "2022-11-01"] as const);
  const references = body.items("networkInterfaces");
  const configurations = body.items("networkInterfaceConfigurations");
  if (references.length > 0 && configurations.length > 0) {
    throw invalidParameter(
      "networkProfile",
      "networkInterfaces and networkInterfaceConfigurations cannot both be specified.",
    );
  }
  if (references.length + configurations.length === 0) {
    throw invalidParameter("networkProfile", "Virtual machine must have at least one network interface.");
  }
  if (configurations.length > 0 && apiVersion === undefined) throw missingParameter("networkProfile.networkApiVersion");
  const existing = references.map((r) => readReference(call, r, location));
  const inline = configurations.map((c) => readConfiguration(call, c, location));
  const all = [...existing, ...inline];
  const primaries = all.filter((nic) => nic.primary === true).length;
  if (all.length > 1 && primaries !== 1) {
    const message = `Virtual machine ${call.params.vmName} has ${primaries} primary network interfaces, it must have exactly one.`;
    throw new ArmError(400, "VirtualMachineMustHaveOneNetworkInterfaceAsPrimary", message);
  }
  const publicIps = inline.flatMap((nic) => nic.ips).filter((ip) => ip.publicIp !== undefined).length;
  checkPublicIpQuota(call.cloud, location, publicIps);
  return { existing, inline, count: all.length };
}

function readReference(call: ArmCall, body: Body, location: string): AttachedNic {
  const id = body.need("id");
  const properties = body.child("properties");
  const primary = properties.flag("primary");
  const deleteOption = properties.choice("deleteOption", ["Delete", "Detach"] as const);
  const nic = call.cloud.find("Microsoft.Network/networkInterfaces", id);
  if (nic === undefined || nic.location !== location) throw missingReference(id, call.id);
  if (nic.vmId !== undefined && nic.vmId.toLowerCase() !== call.id.toLowerCase()) {
    const message = `Network Interface ${id} is used by existing resource ${nic.vmId}. In order to delete the network interface, it must be dissociated from the resource. To learn more, see aka.ms/deletenic.`;
    throw new ArmError(400, "NicInUse", message);
  }
  const { reservedFor } = nic;
  if (
    reservedFor !== undefined &&
    reservedFor.vmId.toLowerCase() !== call.id.toLowerCase() &&
    call.cloud.now() < reservedFor.until
  ) {
    const message = `Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Please provide another nic(s) or retry after 180 seconds. Reserved VM: ${reservedFor.vmId}`;
    throw new ArmError(400, "NicReservedForAnotherVm", message);
  }
  return { id: nic.id, primary, deleteOption };
}

function readConfiguration(call: ArmCall, body: Body, location: string): InlineNic {
  const name = body.need("name");
  const tags = checkedTags(body.map("tags"));
  const p = body.child("properties");
  const owner = { id: `${nicPrefix(call)}${name}`, location };
  const configurations = p.items("ipConfigurations");
  if (configurations.length === 0) throw missingParameter("ipConfigurations");
  const ips = configurations.map((c, i) => {
    const ip = c.child("properties");
    const subnetId = ip.has("subnet") ? ip.child("subnet").need("id") : "";
    const found = call.cloud.subnet(subnetId);
    if (found === undefined || found.location !== location) throw missingReference(subnetId, owner.id);
    if ((ip.choice("privateIPAddressVersion", ["IPv4", "IPv6"] as const) ?? "IPv4") !== "IPv4") {
      throw badRequest(`Subnet ${subnetId} has no IPv6 address prefix.`);
    }
    if (call.cloud.freeAddress(found.subnet) === undefined) throw subnetIsFull(subnetId, found.subnet.prefix);
    const publicIp = ip.has("publicIPAddressConfiguration")
      ? readPublicIp(ip.child("publicIPAddressConfiguration"))
      : undefined;
    return { name: c.need("name"), primary: ip.flag("primary") ?? i === 0, subnet: found.subnet, publicIp };
  });
  return {
    ...{ name, tags, primary: p.flag("primary"), ips },
    deleteOption: p.choice("deleteOption", ["Delete", "Detach"] as const) ?? "Detach",
    securityGroupId: securityGroupOf(call.cloud, p, owner),
    properties: {
      enableAcceleratedNetworking: p.flag("enableAcceleratedNetworking") ?? false,
      enableIPForwarding: p.flag("enableIPForwarding") ?? false,
      dnsSettings: p.keep("dnsSettings") ?? { dnsServers: [], appliedDnsServers: [] },
      ...(p.has("disableTcpStateTracking") && { disableTcpStateTracking: p.flag("disableTcpStateTracking") }),
    },
  };
}

function readPublicIp(body: Body): PublicIpRequest {
  const p = body.child("properties");
  const sku = body.child("sku");
  const name = sku.choice("name", ["Basic", "Standard"] as const) ?? "Basic";
  const tier = sku.choice("tier", ["Regional", "Global"] as const) ?? "Regional";
  const allocation =
    p.choice("publicIPAllocationMethod", ["Dynamic", "Static"] as const) ??
    (name === "Standard" ? "Static" : "Dynamic");
  if (name === "Basic") {
    const message = "Basic SKU public IP addresses cannot be created any more. Please use the Standard SKU.";
    throw new ArmError(400, "BasicSkuPublicIpCreationNotAllowed", message);
  }
  if (allocation !== "Static") {
    throw new ArmError(
      400,
      "StandardSkuPublicIPAddressesMustBeStatic",
      "Standard sku publicIp must have AllocationMethod set to Static.",
    );
  }
  return {
    ...{ name: body.need("name"), sku: { name, tier }, tags: checkedTags(body.map("tags")) },
    deleteOption: p.choice("deleteOption", ["Delete", "Detach"] as const) ?? "Detach",
    properties: {
      publicIPAllocationMethod: allocation,
      publicIPAddressVersion: p.choice("publicIPAddressVersion", ["IPv4", "IPv6"] as const) ?? "IPv4",
      idleTimeoutInMinutes: p.number("idleTimeoutInMinutes") ?? 4,
    },
  };
}

/** Makes the interfaces of a new VM, and takes those that are there. Primary first. */
export function attachNics(
  call: ArmCall,
  request: NetworkRequest,
  options: { readonly location: string; readonly zones: readonly string[]; readonly vmId: string | undefined },
): AttachedNic[] {
  const { cloud } = call;
  const made = request.inline.map((nic) => {
    // Compute adds something of its own to the name, so that several VMs can be made of one configuration.
    const id = `${nicPrefix(call)}${nic.name}-${cloud.random(4)}`;
    const ipConfigurations: IpConfiguration[] = [];
    const created = newNic(cloud, id, {
      ...{ location: options.location, tags: new Map(nic.tags), ipConfigurations, properties: nic.properties },
      ...{ securityGroupId: nic.securityGroupId, vmId: options.vmId },
    });
    for (const ip of nic.ips) ipConfigurations.push(newConfiguration(cloud, created, { ...ip, ...options }));
    created.state = "Succeeded";
    return { id, primary: nic.primary, deleteOption: nic.deleteOption };
  });
  for (const { id } of request.existing) {
    const nic = cloud.find("Microsoft.Network/networkInterfaces", id);
    if (nic !== undefined) Object.assign(nic, { vmId: options.vmId, reservedFor: undefined });
  }
  return [...request.existing, ...made].sort((a, b) => Number(b.primary ?? false) - Number(a.primary ?? false));
}

function newConfiguration(
  cloud: Subscription,
  nic: NetworkInterface,
  ip: InlineNic["ips"][number] & { readonly location: string; readonly zones: readonly string[] },
): IpConfiguration {
  const { publicIp } = ip;
  const publicIpId =
    publicIp &&
    `${nic.id.replace(/networkInterfaces\/[^/]+$/i, "publicIPAddresses/")}${publicIp.name}-${cloud.random(4)}`;
  if (publicIp !== undefined && publicIpId !== undefined) {
    newPublicIp(cloud, publicIpId, { ...publicIp, location: ip.location, zones: ip.zones, nicId: nic.id }).state =
      "Succeeded";
  }
  return {
    ...{ name: ip.name, primary: ip.primary, subnetId: ip.subnet.id, allocation: "Dynamic", publicIpId },
    address: cloud.host?.givesAddresses === true ? "" : (cloud.freeAddress(ip.subnet) ?? ""),
  };
}

function nicPrefix(call: ArmCall): string {
  const group = parseResourceId(call.id)?.group ?? "";
  return `${call.cloud.groupId(group)}/providers/Microsoft.Network/networkInterfaces/`;
}
