import { createHash } from "node:crypto";
import { macOf } from "../../machines/index.ts";
import { ArmError } from "../arm-error.ts";
import type { Body, JsonObject } from "../body.ts";
import {
  beginDelete,
  checkedLocation,
  checkedTags,
  checkSameLocation,
  finishPut,
  list,
  newCommon,
  read,
  reference,
  shownCommon,
} from "../lifecycle.ts";
import { lastName, sameResource } from "../resource-id.ts";
import type { IpConfiguration, NetworkInterface } from "../resources.ts";
import { type ArmCall, type ArmReply, IN_GROUP, IN_SUBSCRIPTION, NETWORK, type Route } from "../route.ts";
import type { Subscription } from "../subscription.ts";

const TYPE = "Microsoft.Network/networkInterfaces";
const AT = `${IN_GROUP}/${NETWORK}/networkInterfaces`;

export function weakEtag(id: string, version: number): string {
  return `W/"${createHash("sha256").update(`${id} ${version}`).digest("hex").slice(0, 32)}"`;
}

/** As Azure writes it. */
export function hardwareAddress(nic: NetworkInterface): string {
  return macOf("azure", nic.ipConfigurations[0]?.address || "0.0.0.0")
    .toUpperCase()
    .replaceAll(":", "-");
}

export function renderNic(nic: NetworkInterface): JsonObject {
  const tag = weakEtag(nic.id, nic.version);
  return {
    ...shownCommon(nic),
    etag: tag,
    properties: {
      provisioningState: nic.state === "Creating" ? "Updating" : nic.state,
      resourceGuid: tag.slice(3, -1),
      ipConfigurations: nic.ipConfigurations.map((c) => ({
        name: c.name,
        id: `${nic.id}/ipConfigurations/${c.name}`,
        etag: tag,
        type: "Microsoft.Network/networkInterfaces/ipConfigurations",
        properties: {
          ...{ provisioningState: "Succeeded", privateIPAllocationMethod: c.allocation },
          ...(c.address !== "" && { privateIPAddress: c.address }),
          ...(c.publicIpId && { publicIPAddress: { id: c.publicIpId } }),
          ...{ subnet: { id: c.subnetId }, primary: c.primary, privateIPAddressVersion: "IPv4" },
        },
      })),
      ...(nic.vmId && { macAddress: hardwareAddress(nic), virtualMachine: { id: nic.vmId } }),
      ...(nic.securityGroupId && { networkSecurityGroup: { id: nic.securityGroupId } }),
      ...{ primary: nic.vmId !== undefined, hostedWorkloads: [], tapConfigurations: [], nicType: "Standard" },
      vnetEncryptionSupported: false,
      ...nic.properties,
    },
  };
}

/** @throws ArmError for a group that is not there, or elsewhere */
export function securityGroupOf(
  cloud: Subscription,
  body: Body,
  owner: { readonly id: string; readonly location: string },
): string | undefined {
  if (!body.has("networkSecurityGroup")) return undefined;
  const id = body.child("networkSecurityGroup").need("id");
  const group = reference(cloud, "Microsoft.Network/networkSecurityGroups", id);
  if (group?.location !== owner.location) throw missingReference(id, owner.id);
  return group.id;
}

export function missingReference(id: string, owner: string): ArmError {
  const message = `Resource ${id} referenced by resource ${owner} was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.`;
  return new ArmError(400, "InvalidResourceReference", message);
}

export function subnetIsFull(subnetId: string, prefix: string): ArmError {
  const message = `Subnet ${lastName(subnetId)} with address prefix ${prefix} does not have enough capacity for 1 IP addresses.`;
  return new ArmError(400, "SubnetIsFull", message);
}

/** Makes an interface that is there at once. */
export function newNic(
  cloud: Subscription,
  id: string,
  more: Pick<NetworkInterface, "location" | "tags" | "ipConfigurations" | "securityGroupId" | "properties"> & {
    readonly vmId?: string | undefined;
  },
): NetworkInterface {
  const nic: NetworkInterface = {
    ...newCommon(cloud, id, { location: more.location, tags: more.tags }),
    type: TYPE,
    ipConfigurations: more.ipConfigurations,
    securityGroupId: more.securityGroupId,
    vmId: more.vmId,
    reservedFor: undefined,
    properties: more.properties,
  };
  cloud.put(nic);
  return nic;
}

function readConfigurations(call: ArmCall, properties: Body, location: string): IpConfiguration[] {
  const { cloud } = call;
  const taken = new Set<string>();
  const configurations = properties.items("ipConfigurations");
  if (configurations.length === 0) {
    const message = `Network interface ${call.id} must have at least one IP configuration.`;
    throw new ArmError(400, "NetworkInterfaceMustHaveIpConfigurations", message);
  }
  return configurations.map((c, i) => {
    const name = c.need("name");
    const p = c.child("properties");
    const subnetId = p.child("subnet").need("id");
    const found = cloud.subnet(subnetId);
    if (found === undefined || found.location !== location) throw missingReference(subnetId, call.id);
    const allocation = p.choice("privateIPAllocationMethod", ["Dynamic", "Static"] as const) ?? "Dynamic";
    if ((p.choice("privateIPAddressVersion", ["IPv4", "IPv6"] as const) ?? "IPv4") !== "IPv4") {
      throw new ArmError(400, "SubnetHasNoIpv6Prefix", `Subnet ${subnetId} has no IPv6 address prefix.`);
    }
    const wanted = p.text("privateIPAddress");
    if (allocation === "Static" && wanted !== undefined && cloud.takenAddresses(found.subnet.id).has(wanted)) {
      throw new ArmError(
        400,
        "PrivateIPAddressInUse",
        `IP configuration ${name} is using the private IP address ${wanted} which is already allocated.`,
      );
    }
    const publicIpId = p.has("publicIPAddress") ? p.child("publicIPAddress").need("id") : undefined;
    const publicIp =
      publicIpId === undefined ? undefined : reference(cloud, "Microsoft.Network/publicIPAddresses", publicIpId);
    if (publicIpId !== undefined && publicIp === undefined) throw missingReference(publicIpId, call.id);
    if (publicIp?.nicId !== undefined && !sameResource(publicIp.nicId, call.id)) {
      const message = `Resource ${call.id} is referencing public IP address ${publicIpId} that is already allocated to resource ${publicIp.nicId}.`;
      throw new ArmError(400, "PublicIPAddressInUse", message);
    }
    const address = allocation === "Static" && wanted !== undefined ? wanted : cloud.freeAddress(found.subnet);
    if (address === undefined || taken.has(address)) throw subnetIsFull(subnetId, found.subnet.prefix);
    taken.add(address);
    const primary = p.flag("primary") ?? i === 0;
    return { name, primary, subnetId: found.subnet.id, address, allocation, publicIpId: publicIp?.id };
  });
}

function put(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const location = checkedLocation(call, TYPE, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  body.keep("extendedLocation");
  for (const name of ["id", "name", "type", "etag"]) body.keep(name);
  const properties = body.child("properties");
  for (const name of ["provisioningState", "resourceGuid", "macAddress", "primary", "virtualMachine"])
    properties.keep(name);
  const existing = cloud.find(TYPE, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  const securityGroupId = securityGroupOf(cloud, properties, { id: call.id, location });
  const shown = {
    enableAcceleratedNetworking: properties.flag("enableAcceleratedNetworking") ?? false,
    enableIPForwarding: properties.flag("enableIPForwarding") ?? false,
    dnsSettings: properties.keep("dnsSettings") ?? { dnsServers: [], appliedDnsServers: [] },
  };
  const ipConfigurations = readConfigurations(call, properties, location);
  call.commit();
  const nic =
    existing ??
    newNic(cloud, call.id, { location, tags: new Map(tags), ipConfigurations, securityGroupId, properties: shown });
  if (existing !== undefined) {
    Object.assign(existing, { ipConfigurations, securityGroupId, properties: shown, state: "Updating" });
    existing.version++;
    if (tags !== undefined) existing.tags = new Map(tags);
  }
  for (const { publicIpId } of ipConfigurations) {
    const publicIp =
      publicIpId === undefined ? undefined : cloud.find("Microsoft.Network/publicIPAddresses", publicIpId);
    if (publicIp !== undefined) publicIp.nicId = nic.id;
  }
  const operation = finishPut(cloud, nic, {
    ...{ namespace: "Microsoft.Network", apiVersion: call.apiVersion, afterMs: cloud.knobs.networkMs },
  });
  return { status: existing === undefined ? 201 : 200, body: renderNic(nic), operation };
}

/** @throws ArmError while something holds the interface */
function checkFree(cloud: Subscription, nic: NetworkInterface): void {
  if (nic.vmId !== undefined) {
    const message = `Network Interface ${nic.id} is used by existing resource ${nic.vmId}. In order to delete the network interface, it must be dissociated from the resource. To learn more, see aka.ms/deletenic.`;
    throw new ArmError(400, "NicInUse", message);
  }
  const { reservedFor } = nic;
  if (reservedFor !== undefined && cloud.now() < reservedFor.until) {
    const message = `Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Please provide another nic(s) or retry after 180 seconds. Reserved VM: ${reservedFor.vmId}`;
    throw new ArmError(400, "NicReservedForAnotherVm", message);
  }
}

/** What is left free when an interface is gone. */
export function releaseNic(cloud: Subscription, nic: NetworkInterface): void {
  for (const { publicIpId } of nic.ipConfigurations) {
    const publicIp =
      publicIpId === undefined ? undefined : cloud.find("Microsoft.Network/publicIPAddresses", publicIpId);
    if (publicIp !== undefined) publicIp.nicId = undefined;
  }
}

export const NIC_ROUTES: readonly Route[] = [
  {
    ...{ name: "NetworkInterfaces_Get", method: "GET", path: `${AT}/{networkInterfaceName}` },
    action: "Microsoft.Network/networkInterfaces/read",
    handle: (call) => ({ status: 200, body: renderNic(read(call, TYPE)) }),
  },
  {
    ...{ name: "NetworkInterfaces_CreateOrUpdate", method: "PUT", path: `${AT}/{networkInterfaceName}` },
    action: "Microsoft.Network/networkInterfaces/write",
    handle: put,
  },
  {
    ...{ name: "NetworkInterfaces_UpdateTags", method: "PATCH", path: `${AT}/{networkInterfaceName}` },
    action: "Microsoft.Network/networkInterfaces/write",
    handle: (call) => {
      const nic = read(call, TYPE);
      const tags = checkedTags(call.body.map("tags")) ?? new Map<string, string>();
      call.commit();
      nic.tags = new Map(tags);
      nic.version++;
      return { status: 200, body: renderNic(nic) };
    },
  },
  {
    ...{ name: "NetworkInterfaces_Delete", method: "DELETE", path: `${AT}/{networkInterfaceName}` },
    action: "Microsoft.Network/networkInterfaces/delete",
    handle: (call) =>
      beginDelete(call, TYPE, {
        ...{ namespace: "Microsoft.Network", afterMs: call.cloud.knobs.networkMs },
        check: (nic) => checkFree(call.cloud, nic),
        finish: (nic) => releaseNic(call.cloud, nic),
      }),
  },
  ...[
    { name: "NetworkInterfaces_List", path: AT },
    { name: "NetworkInterfaces_ListAll", path: `${IN_SUBSCRIPTION}/${NETWORK}/networkInterfaces` },
  ].map(
    ({ name, path }): Route => ({
      ...{ name, method: "GET", path, action: "Microsoft.Network/networkInterfaces/read" },
      handle: (call) => list(call, TYPE, renderNic),
    }),
  ),
];
