import { isPrefix, overlap, within } from "../addresses.ts";
import { ArmError } from "../arm-error.ts";
import type { Body, Json, JsonObject } from "../body.ts";
import {
  beginDelete,
  checkedLocation,
  checkedTags,
  checkSameLocation,
  finishPut,
  list,
  newCommon,
  read,
  shownCommon,
} from "../lifecycle.ts";
import { sameResource } from "../resource-id.ts";
import type { SecurityGroup, SecurityRule, Subnet, VirtualNetwork } from "../resources.ts";
import { type ArmCall, type ArmReply, IN_GROUP, IN_SUBSCRIPTION, NETWORK, page, type Route } from "../route.ts";
import type { Subscription } from "../subscription.ts";
import { weakEtag } from "./interfaces.ts";

const VNET = "Microsoft.Network/virtualNetworks";
const NSG = "Microsoft.Network/networkSecurityGroups";
const VNETS = `${IN_GROUP}/${NETWORK}/virtualNetworks`;
const NSGS = `${IN_GROUP}/${NETWORK}/networkSecurityGroups`;

function renderSubnet(cloud: Subscription, subnet: Subnet): JsonObject {
  const inside = cloud
    .all("Microsoft.Network/networkInterfaces")
    .flatMap((nic) => nic.ipConfigurations.map((c) => ({ nic, c })))
    .filter(({ c }) => sameResource(c.subnetId, subnet.id));
  return {
    ...{ id: subnet.id, name: subnet.name, type: `${VNET}/subnets`, etag: weakEtag(subnet.id, 1) },
    properties: {
      ...{ provisioningState: "Succeeded", addressPrefix: subnet.prefix, delegations: [] },
      ...(inside.length > 0 && {
        ipConfigurations: inside.map(({ nic, c }) => ({ id: `${nic.id}/ipConfigurations/${c.name}` })),
      }),
      ...{ privateEndpointNetworkPolicies: "Disabled", privateLinkServiceNetworkPolicies: "Enabled" },
      ...subnet.properties,
    },
  };
}

function renderNetwork(cloud: Subscription, network: VirtualNetwork): JsonObject {
  return {
    ...shownCommon(network),
    etag: weakEtag(network.id, network.version),
    properties: {
      ...{ provisioningState: network.state === "Creating" ? "Updating" : network.state, enableDdosProtection: false },
      ...{ addressSpace: { addressPrefixes: network.prefixes }, virtualNetworkPeerings: [] },
      subnets: network.subnets.map((s) => renderSubnet(cloud, s)),
    },
  };
}

function readSubnet(
  body: Body,
  network: { readonly id: string; readonly prefixes: readonly string[] },
  name: string,
): Subnet {
  const properties = body.child("properties");
  const prefix = properties.text("addressPrefix") ?? properties.texts("addressPrefixes")[0] ?? "";
  if (!isPrefix(prefix)) {
    throw new ArmError(
      400,
      "InvalidCIDRNotation",
      `The address prefix ${prefix} in resource ${network.id} has an invalid CIDR notation.`,
    );
  }
  if (!network.prefixes.some((outer) => within(prefix, outer))) {
    const message = `Subnet '${name}' is not valid because its IP address range is outside the IP address range of virtual network '${network.id}'.`;
    throw new ArmError(400, "NetcfgInvalidSubnet", message);
  }
  const shown: Record<string, Json> = {};
  if (properties.has("networkSecurityGroup")) {
    shown.networkSecurityGroup = { id: properties.child("networkSecurityGroup").need("id") };
  }
  const outbound = properties.flag("defaultOutboundAccess");
  if (outbound !== undefined) shown.defaultOutboundAccess = outbound;
  return { id: `${network.id}/subnets/${name}`, name, prefix, properties: shown };
}

function checkApart(subnets: readonly Subnet[]): void {
  for (const [i, one] of subnets.entries()) {
    const other = subnets.slice(i + 1).find((s) => overlap(one.prefix, s.prefix));
    if (other === undefined) continue;
    const message = `Subnet '${one.name}' is not valid because its IP address range overlaps with that of an existing subnet '${other.name}'.`;
    throw new ArmError(400, "NetcfgSubnetRangesOverlap", message);
  }
}

function putNetwork(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const location = checkedLocation(call, VNET, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const properties = body.child("properties");
  const prefixes = properties.child("addressSpace").texts("addressPrefixes");
  const wrong = prefixes.find((p) => !isPrefix(p));
  if (wrong !== undefined || prefixes.length === 0) {
    throw new ArmError(400, "InvalidCIDRNotation", `The address prefix ${wrong} has an invalid CIDR notation.`);
  }
  const existing = cloud.find(VNET, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  const given = properties.items("subnets");
  const subnets = given.map((s) => readSubnet(s, { id: call.id, prefixes }, s.need("name")));
  checkApart(subnets);
  for (const old of existing?.subnets ?? []) {
    if (!subnets.some((s) => sameResource(s.id, old.id))) checkSubnetFree(cloud, old);
  }
  call.commit();
  const network: VirtualNetwork = {
    ...(existing ?? newCommon(cloud, call.id, { location })),
    ...{ type: VNET, prefixes, subnets, tags: new Map(tags ?? existing?.tags) },
  };
  cloud.put(network);
  const afterMs = cloud.knobs.networkMs;
  const operation = finishPut(cloud, network, { namespace: "Microsoft.Network", apiVersion: call.apiVersion, afterMs });
  return { status: existing === undefined ? 201 : 200, body: renderNetwork(cloud, network), operation };
}

function checkSubnetFree(cloud: Subscription, subnet: Subnet): void {
  if (cloud.takenAddresses(subnet.id).size === 0) return;
  const message = `Subnet ${subnet.name} is in use and cannot be deleted. In order to delete the subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.`;
  throw new ArmError(400, "InUseSubnetCannotBeDeleted", message);
}

function networkOf(call: ArmCall): VirtualNetwork {
  return call.cloud.need(VNET, call.id.slice(0, call.id.toLowerCase().lastIndexOf("/subnets")));
}

function getSubnet(call: ArmCall): ArmReply {
  const subnet = networkOf(call).subnets.find((s) => sameResource(s.id, call.id));
  if (subnet === undefined) throw new ArmError(404, "NotFound", `Resource ${call.id} not found.`);
  return { status: 200, body: renderSubnet(call.cloud, subnet) };
}

function putSubnet(call: ArmCall): ArmReply {
  const network = networkOf(call);
  call.body.text("name");
  const subnet = readSubnet(call.body, network, call.params.subnetName ?? "");
  const others = network.subnets.filter((s) => !sameResource(s.id, subnet.id));
  checkApart([...others, subnet]);
  call.commit();
  const status = others.length === network.subnets.length ? 201 : 200;
  network.subnets = [...others, subnet];
  const { knobs } = call.cloud;
  const operation = finishPut(call.cloud, network, {
    ...{ namespace: "Microsoft.Network", apiVersion: call.apiVersion, afterMs: knobs.networkMs },
  });
  return { status, body: renderSubnet(call.cloud, subnet), operation };
}

/** Source: learn.microsoft.com "Network security groups", default security rules. */
function renderGroup(cloud: Subscription, group: SecurityGroup): JsonObject {
  const rule = (r: SecurityRule, kind: string): JsonObject => ({
    ...{ id: `${group.id}/${kind}/${r.name}`, name: r.name, type: `${NSG}/${kind}`, etag: weakEtag(group.id, 1) },
    properties: { provisioningState: "Succeeded", ...r.properties },
  });
  const standard = (name: string, priority: number, access: string, direction: string, from: string, to: string) => ({
    name,
    properties: {
      ...{ protocol: "*", sourcePortRange: "*", destinationPortRange: "*", priority, access, direction },
      ...{ sourceAddressPrefix: from, destinationAddressPrefix: to },
    },
  });
  return {
    ...shownCommon(group),
    etag: weakEtag(group.id, group.version),
    properties: {
      provisioningState: group.state === "Creating" ? "Updating" : group.state,
      securityRules: group.rules.map((r) => rule(r, "securityRules")),
      defaultSecurityRules: [
        standard("AllowVnetInBound", 65000, "Allow", "Inbound", "VirtualNetwork", "VirtualNetwork"),
        standard("AllowAzureLoadBalancerInBound", 65001, "Allow", "Inbound", "AzureLoadBalancer", "*"),
        standard("DenyAllInBound", 65500, "Deny", "Inbound", "*", "*"),
        standard("AllowVnetOutBound", 65000, "Allow", "Outbound", "VirtualNetwork", "VirtualNetwork"),
        standard("AllowInternetOutBound", 65001, "Allow", "Outbound", "*", "Internet"),
        standard("DenyAllOutBound", 65500, "Deny", "Outbound", "*", "*"),
      ].map((r) => rule(r, "defaultSecurityRules")),
      networkInterfaces: cloud
        .all("Microsoft.Network/networkInterfaces")
        .filter((nic) => nic.securityGroupId !== undefined && sameResource(nic.securityGroupId, group.id))
        .map(({ id }) => ({ id })),
    },
  };
}

function readRule(body: Body): SecurityRule {
  const p = body.child("properties");
  const priority = p.number("priority") ?? 0;
  if (priority < 100 || priority > 4096) {
    throw new ArmError(
      400,
      "SecurityRuleInvalidPriority",
      `Security rule has invalid Priority. Value provided: ${priority} Allowed range 100-4096.`,
    );
  }
  const properties = {
    ...{ protocol: p.need("protocol"), access: p.need("access"), direction: p.need("direction"), priority },
    ...Object.fromEntries(
      [
        ...[
          "description",
          "sourcePortRange",
          "destinationPortRange",
          "sourceAddressPrefix",
          "destinationAddressPrefix",
        ],
        ...["sourcePortRanges", "destinationPortRanges", "sourceAddressPrefixes", "destinationAddressPrefixes"],
      ]
        .filter((name) => p.has(name))
        .map((name) => [name, p.keep(name)]),
    ),
  };
  return { name: body.need("name"), properties };
}

function putGroup(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const location = checkedLocation(call, NSG, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const rules = body.child("properties").items("securityRules").map(readRule);
  const existing = cloud.find(NSG, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  call.commit();
  const group: SecurityGroup = {
    ...(existing ?? newCommon(cloud, call.id, { location })),
    ...{ type: NSG, rules, tags: new Map(tags ?? existing?.tags) },
  };
  cloud.put(group);
  const afterMs = cloud.knobs.networkMs;
  const operation = finishPut(cloud, group, { namespace: "Microsoft.Network", apiVersion: call.apiVersion, afterMs });
  return { status: existing === undefined ? 201 : 200, body: renderGroup(cloud, group), operation };
}

function usages(call: ArmCall): ArmReply {
  const { cloud } = call;
  const count = (type: "Microsoft.Network/publicIPAddresses" | "Microsoft.Network/networkInterfaces"): number =>
    cloud.all(type).filter((r) => r.location === call.params.location?.toLowerCase()).length;
  const usage = (name: string, currentValue: number, limit: number): JsonObject => ({
    id: `${call.id}/${name}`,
    ...{ unit: "Count", currentValue, limit: cloud.knobs.quota.get(name) ?? limit },
    name: { value: name, localizedValue: name },
  });
  return page(call, [
    usage("NetworkInterfaces", count("Microsoft.Network/networkInterfaces"), 65_536),
    usage("PublicIPAddresses", count("Microsoft.Network/publicIPAddresses"), 1000),
  ]);
}

function reads(type: typeof VNET | typeof NSG, group: string, at: string, name: string): Route[] {
  const handle = (call: ArmCall): ArmReply => ({
    status: 200,
    body: type === VNET ? renderNetwork(call.cloud, read(call, VNET)) : renderGroup(call.cloud, read(call, NSG)),
  });
  const all = (call: ArmCall): ArmReply =>
    type === VNET
      ? list(call, VNET, (n) => renderNetwork(call.cloud, n))
      : list(call, NSG, (g) => renderGroup(call.cloud, g));
  const action = `${type}/read`;
  return [
    { name: `${group}_Get`, method: "GET", path: `${at}/{${name}}`, action, handle },
    { name: `${group}_List`, method: "GET", path: at, action, handle: all },
    {
      ...{ name: `${group}_ListAll`, method: "GET", action, handle: all },
      path: at.replace(IN_GROUP, IN_SUBSCRIPTION),
    },
  ];
}

/** Virtual networks with their subnets, security groups, and what a location still has. */
export const NETWORK_ROUTES: readonly Route[] = [
  ...reads(VNET, "VirtualNetworks", VNETS, "virtualNetworkName"),
  ...reads(NSG, "NetworkSecurityGroups", NSGS, "networkSecurityGroupName"),
  {
    ...{ name: "VirtualNetworks_CreateOrUpdate", method: "PUT", path: `${VNETS}/{virtualNetworkName}` },
    ...{ action: `${VNET}/write`, handle: putNetwork },
  },
  {
    ...{ name: "VirtualNetworks_Delete", method: "DELETE", path: `${VNETS}/{virtualNetworkName}` },
    action: `${VNET}/delete`,
    handle: (call) =>
      beginDelete(call, VNET, {
        ...{ namespace: "Microsoft.Network", afterMs: call.cloud.knobs.networkMs },
        check: (network) => {
          for (const subnet of network.subnets) checkSubnetFree(call.cloud, subnet);
        },
      }),
  },
  {
    ...{ name: "Subnets_Get", method: "GET", path: `${VNETS}/{virtualNetworkName}/subnets/{subnetName}` },
    ...{ action: `${VNET}/subnets/read`, handle: getSubnet },
  },
  {
    ...{ name: "Subnets_CreateOrUpdate", method: "PUT", path: `${VNETS}/{virtualNetworkName}/subnets/{subnetName}` },
    ...{ action: `${VNET}/subnets/write`, handle: putSubnet },
  },
  {
    ...{ name: "Subnets_List", method: "GET", path: `${VNETS}/{virtualNetworkName}/subnets` },
    action: `${VNET}/subnets/read`,
    handle: (call) =>
      page(
        call,
        call.cloud.need(VNET, call.id.slice(0, -"/subnets".length)).subnets.map((s) => renderSubnet(call.cloud, s)),
      ),
  },
  {
    ...{ name: "NetworkSecurityGroups_CreateOrUpdate", method: "PUT", path: `${NSGS}/{networkSecurityGroupName}` },
    ...{ action: `${NSG}/write`, handle: putGroup },
  },
  {
    ...{ name: "NetworkSecurityGroups_Delete", method: "DELETE", path: `${NSGS}/{networkSecurityGroupName}` },
    action: `${NSG}/delete`,
    handle: (call) =>
      beginDelete(call, NSG, {
        ...{ namespace: "Microsoft.Network", afterMs: call.cloud.knobs.networkMs },
        check: (group) => {
          const used = call.cloud
            .all("Microsoft.Network/networkInterfaces")
            .some((nic) => nic.securityGroupId !== undefined && sameResource(nic.securityGroupId, group.id));
          if (!used) return;
          const message = `Network security group ${group.id} cannot be deleted because it is in use.`;
          throw new ArmError(400, "InUseNetworkSecurityGroupCannotBeDeleted", message);
        },
      }),
  },
  {
    ...{ name: "Usages_List", method: "GET", path: `${IN_SUBSCRIPTION}/${NETWORK}/locations/{location}/usages` },
    ...{ action: "Microsoft.Network/locations/usages/read", handle: usages },
  },
];
