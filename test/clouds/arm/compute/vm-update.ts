import { ArmError, invalidParameter } from "../arm-error.ts";
import type { Json, JsonObject } from "../body.ts";
import { checkedTags, checkSameLocation, etag } from "../lifecycle.ts";
import type { VirtualMachine } from "../resources.ts";
import type { ArmCall, ArmReply } from "../route.ts";
import { findSize } from "../vm-sizes.ts";
import { markedForDeletion } from "./marked.ts";
import { renderVm } from "./vm-view.ts";

/** Properties that a PUT may name but not change. */
const FIXED = [
  ...["osProfile", "securityProfile", "priority", "evictionPolicy", "billingProfile", "availabilitySet"],
  ...["additionalCapabilities", "licenseType", "extensionsTimeBudget", "scheduledEventsProfile", "diagnosticsProfile"],
] as const;

function notAllowed(property: string): ArmError {
  return new ArmError(409, "PropertyChangeNotAllowed", `Changing property '${property}' is not allowed.`, {
    target: property,
  });
}

/** A PUT of a VM that is there: what is named must be what it is, but for tags, user data and size. */
export function updateVm(call: ArmCall, vm: VirtualMachine): ArmReply {
  const { body, cloud } = call;
  if (vm.state === "Deleting") throw markedForDeletion(vm);
  for (const name of ["id", "name", "type", "etag", "resources", "systemData", "plan", "identity"]) body.keep(name);
  checkSameLocation(vm, body.need("location").toLowerCase().replaceAll(" ", ""));
  const tags = checkedTags(body.map("tags"));
  const zones = body.texts("zones");
  if (zones.join() !== vm.zones.join()) throw notAllowed("zones");
  const properties = body.child("properties");
  for (const name of ["provisioningState", "vmId", "timeCreated", "instanceView"]) properties.keep(name);
  for (const name of FIXED) {
    const given = properties.keep(name);
    if (given !== undefined && !covers(vm.properties[name], given)) throw notAllowed(name);
  }
  const storage = properties.keep("storageProfile");
  if (storage !== undefined && !covers(vm.properties.storageProfile, storage)) {
    throw notAllowed(firstDifference(vm.properties.storageProfile as JsonObject, storage as JsonObject));
  }
  const network = properties.child("networkProfile");
  if (network.has("networkInterfaceConfigurations")) throw notAllowed("networkProfile.networkInterfaceConfigurations");
  network.keep("networkApiVersion");
  const nics = network.keep("networkInterfaces");
  const shownNics = (renderVm(vm).properties as JsonObject).networkProfile as JsonObject;
  if (nics !== undefined && !covers(shownNics.networkInterfaces, nics))
    throw notAllowed("networkProfile.networkInterfaces");
  const wanted = properties.child("hardwareProfile").text("vmSize") ?? vm.size.name;
  const size = findSize(wanted);
  if (size === undefined)
    throw invalidParameter("vmSize", `The value ${wanted} provided for the VM size is not valid.`);
  if (size.confidential !== vm.size.confidential) {
    throw new ArmError(409, "OperationNotAllowed", `Unable to resize the VM '${vm.name}' to '${size.name}'.`);
  }
  const userData = properties.text("userData");
  if (vm.operation !== undefined) {
    const message =
      "The request failed due to conflict with a concurrent request. To resolve it, please refer to https://aka.ms/activitylog to get more details on the conflicting requests.";
    throw new ArmError(409, "Conflict", message);
  }
  call.commit();
  if (tags !== undefined) vm.tags = new Map(tags);
  if (userData !== undefined) vm.userData = userData;
  Object.assign(vm, { size, state: "Updating" });
  vm.version++;
  vm.operation = cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: vm.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + cloud.knobs.powerMs,
    finish: () => {
      Object.assign(vm, { state: "Succeeded", operation: undefined });
      return undefined;
    },
  });
  return { status: 200, body: renderVm(vm), operation: vm.operation, headers: { etag: etag(vm) } };
}

/** Whether everything in `given` is as it is in `there`; secrets are never shown and cannot be compared. */
function covers(there: Json, given: Json): boolean {
  if (given === undefined || given === null) return true;
  if (typeof given !== "object") {
    return typeof given === "string" && typeof there === "string"
      ? given.toLowerCase() === there.toLowerCase()
      : given === there;
  }
  if (typeof there !== "object" || there === null) return false;
  if (Array.isArray(given)) {
    return Array.isArray(there) && given.length === there.length && given.every((g: Json, i) => covers(there[i], g));
  }
  return Object.entries(given).every(([name, value]) => covers((there as JsonObject)[name], value));
}

function firstDifference(there: JsonObject, given: JsonObject): string {
  return Object.keys(given).find((name) => !covers(there[name], given[name])) ?? "storageProfile";
}
