import { ArmError, notImplemented } from "./arm-error.ts";
import type { JsonObject } from "./body.ts";
import { checkedLocation } from "./lifecycle.ts";
import { parseResourceId } from "./resource-id.ts";
import { type ArmCall, IN_GROUP, IN_SUBSCRIPTION, page, type Route } from "./route.ts";

function render(call: ArmCall, group: { readonly name: string; readonly location: string }): JsonObject {
  return {
    id: call.cloud.groupId(group.name),
    name: group.name,
    type: "Microsoft.Resources/resourceGroups",
    location: group.location,
    properties: { provisioningState: "Succeeded" },
  };
}

function need(call: ArmCall) {
  const name = call.params.resourceGroupName ?? "";
  const group = call.cloud.groups.get(name.toLowerCase());
  if (group !== undefined) return group;
  throw new ArmError(404, "ResourceGroupNotFound", `Resource group '${name}' could not be found.`);
}

function permissions(call: ArmCall) {
  const notActions = [...call.cloud.knobs.denied];
  return page(call, [{ actions: ["*"], notActions, dataActions: [], notDataActions: [] }]);
}

/** Resource groups, the subscription's locations and the caller's permissions. */
export const GROUP_ROUTES: readonly Route[] = [
  {
    ...{ name: "ResourceGroups_Get", method: "GET", path: IN_GROUP },
    action: "Microsoft.Resources/subscriptions/resourceGroups/read",
    handle: (call) => ({ status: 200, body: render(call, need(call)) }),
  },
  {
    ...{ name: "ResourceGroups_List", method: "GET", path: `${IN_SUBSCRIPTION}/resourceGroups` },
    action: "Microsoft.Resources/subscriptions/resourceGroups/read",
    handle: (call) =>
      page(
        call,
        [...call.cloud.groups.values()].map((g) => render(call, g)),
      ),
  },
  {
    ...{ name: "ResourceGroups_CreateOrUpdate", method: "PUT", path: IN_GROUP },
    action: "Microsoft.Resources/subscriptions/resourceGroups/write",
    handle: (call) => {
      const name = call.params.resourceGroupName ?? "";
      const location = checkedLocation(call, "Microsoft.Resources/resourceGroups", call.body.need("location"));
      call.body.map("tags");
      const there = call.cloud.groups.get(name.toLowerCase());
      if (there !== undefined && there.location !== location) {
        const message = `Invalid resource group location '${location}'. The Resource group already exists in location '${there.location}'.`;
        throw new ArmError(409, "InvalidResourceGroupLocation", message);
      }
      call.commit();
      const group = there ?? { name, location, seeded: false };
      call.cloud.groups.set(name.toLowerCase(), group);
      return { status: there === undefined ? 201 : 200, body: render(call, group) };
    },
  },
  {
    ...{ name: "ResourceGroups_Delete", method: "DELETE", path: IN_GROUP },
    action: "Microsoft.Resources/subscriptions/resourceGroups/delete",
    handle: (call) => {
      const group = need(call);
      const inside = [...call.cloud.resources.values()].filter(
        (r) => parseResourceId(r.id)?.group.toLowerCase() === group.name.toLowerCase(),
      );
      if (inside.length > 0) throw notImplemented("the deletion of a group that is not empty");
      call.commit();
      call.cloud.groups.delete(group.name.toLowerCase());
      return { status: 200 };
    },
  },
  {
    ...{ name: "Subscriptions_ListLocations", method: "GET", path: `${IN_SUBSCRIPTION}/locations` },
    action: "Microsoft.Resources/subscriptions/locations/read",
    handle: (call) =>
      page(
        call,
        [...call.cloud.locations].map(([name, zones]) => ({
          id: `/subscriptions/${call.cloud.id}/locations/${name}`,
          name,
          displayName: name,
          availabilityZoneMappings: zones.map((z) => ({ logicalZone: z, physicalZone: `${name}-az${z}` })),
        })),
      ),
  },
  {
    ...{ name: "Permissions_ListForResourceGroup", method: "GET" },
    path: `${IN_GROUP}/providers/Microsoft.Authorization/permissions`,
    action: "Microsoft.Authorization/permissions/read",
    handle: permissions,
  },
];
