import { ArmError } from "../arm-error.ts";
import type { Json, JsonObject } from "../body.ts";
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
import type { DeleteOption, PublicIp } from "../resources.ts";
import { type ArmCall, type ArmReply, IN_GROUP, IN_SUBSCRIPTION, NETWORK, type Route } from "../route.ts";
import type { Subscription } from "../subscription.ts";
import { weakEtag } from "./interfaces.ts";

const TYPE = "Microsoft.Network/publicIPAddresses";
const AT = `${IN_GROUP}/${NETWORK}/publicIPAddresses`;

function render(ip: PublicIp): JsonObject {
  return {
    ...shownCommon(ip),
    etag: weakEtag(ip.id, ip.version),
    properties: {
      ...{ provisioningState: ip.state === "Creating" ? "Updating" : ip.state, ipAddress: ip.address, ipTags: [] },
      ...(ip.nicId && { ipConfiguration: { id: `${ip.nicId}/ipConfigurations/ip` } }),
      ...(ip.deleteOption && { deleteOption: ip.deleteOption }),
      ...ip.properties,
    },
  };
}

/** Makes an address that is there at once. @throws ArmError when the subscription may have no more */
export function newPublicIp(
  cloud: Subscription,
  id: string,
  more: {
    readonly location: string;
    readonly zones?: readonly string[];
    readonly tags: ReadonlyMap<string, string> | undefined;
    readonly sku: Json;
    readonly deleteOption: DeleteOption | undefined;
    readonly properties: Readonly<Record<string, Json>>;
    readonly nicId?: string | undefined;
  },
): PublicIp {
  const ip: PublicIp = {
    ...newCommon(cloud, id, more),
    ...{ type: TYPE, address: `20.50.${Math.floor(cloud.next() / 250) % 250}.${(cloud.next() % 250) + 1}` },
    ...{ nicId: more.nicId, deleteOption: more.deleteOption, properties: more.properties, shown: { sku: more.sku } },
  };
  cloud.put(ip);
  return ip;
}

export function checkPublicIpQuota(cloud: Subscription, location: string, more: number): void {
  const limit = cloud.knobs.quota.get("PublicIPAddresses");
  const used = cloud.all(TYPE).filter((ip) => ip.location === location).length;
  if (limit === undefined || used + more <= limit) return;
  const message = `Cannot create more than ${limit} public IP addresses for this subscription in this region.`;
  throw new ArmError(400, "PublicIPCountLimitReached", message);
}

function put(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const location = checkedLocation(call, TYPE, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const zones = body.texts("zones");
  const sku = body.child("sku");
  const name = sku.choice("name", ["Basic", "Standard", "StandardV2"] as const) ?? "Basic";
  const tier = sku.choice("tier", ["Regional", "Global"] as const) ?? "Regional";
  const properties = body.child("properties");
  const allocation = properties.choice("publicIPAllocationMethod", ["Dynamic", "Static"] as const) ?? "Dynamic";
  if (name !== "Basic" && allocation !== "Static") {
    const message = `Standard sku publicIp ${call.id} must have AllocationMethod set to Static.`;
    throw new ArmError(400, "StandardSkuPublicIPAddressesMustBeStatic", message);
  }
  const existing = cloud.find(TYPE, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  else checkPublicIpQuota(cloud, location, 1);
  const shown = {
    publicIPAllocationMethod: allocation,
    publicIPAddressVersion: properties.choice("publicIPAddressVersion", ["IPv4", "IPv6"] as const) ?? "IPv4",
    idleTimeoutInMinutes: properties.number("idleTimeoutInMinutes") ?? 4,
  };
  const deleteOption = properties.choice("deleteOption", ["Delete", "Detach"] as const);
  call.commit();
  const ip =
    existing ??
    newPublicIp(cloud, call.id, { location, zones, tags, sku: { name, tier }, deleteOption, properties: shown });
  if (existing !== undefined) {
    Object.assign(existing, { properties: shown, deleteOption });
    if (tags !== undefined) existing.tags = new Map(tags);
    existing.version++;
  }
  const afterMs = cloud.knobs.networkMs;
  const operation = finishPut(cloud, ip, { namespace: "Microsoft.Network", apiVersion: call.apiVersion, afterMs });
  return { status: existing === undefined ? 201 : 200, body: render(ip), operation };
}

export const PUBLIC_IP_ROUTES: readonly Route[] = [
  {
    ...{ name: "PublicIPAddresses_Get", method: "GET", path: `${AT}/{publicIpAddressName}` },
    action: "Microsoft.Network/publicIPAddresses/read",
    handle: (call) => ({ status: 200, body: render(read(call, TYPE)) }),
  },
  {
    ...{ name: "PublicIPAddresses_CreateOrUpdate", method: "PUT", path: `${AT}/{publicIpAddressName}` },
    action: "Microsoft.Network/publicIPAddresses/write",
    handle: put,
  },
  {
    ...{ name: "PublicIPAddresses_Delete", method: "DELETE", path: `${AT}/{publicIpAddressName}` },
    action: "Microsoft.Network/publicIPAddresses/delete",
    handle: (call) =>
      beginDelete(call, TYPE, {
        ...{ namespace: "Microsoft.Network", afterMs: call.cloud.knobs.networkMs },
        check: (ip) => {
          if (ip.nicId === undefined) return;
          const message = `Public IP address ${ip.id} can not be deleted since it is still allocated to resource ${ip.nicId}. In order to delete the public IP, disassociate/detach the Public IP address from the resource.`;
          throw new ArmError(400, "PublicIPAddressCannotBeDeleted", message);
        },
      }),
  },
  ...[
    { name: "PublicIPAddresses_List", path: AT },
    { name: "PublicIPAddresses_ListAll", path: `${IN_SUBSCRIPTION}/${NETWORK}/publicIPAddresses` },
  ].map(
    ({ name, path }): Route => ({
      ...{ name, method: "GET", path, action: "Microsoft.Network/publicIPAddresses/read" },
      handle: (call) => list(call, TYPE, render),
    }),
  ),
];
