import { ArmError } from "../arm-error.ts";
import type { JsonObject } from "../body.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_SUBSCRIPTION, page, type Route } from "../route.ts";
import { VM_SIZES, type VmSize } from "../vm-sizes.ts";
import { MARKETPLACE } from "./catalogue.ts";

const PUBLISHERS = `${IN_SUBSCRIPTION}/${COMPUTE}/locations/{location}/publishers`;
const VM_IMAGES = `${PUBLISHERS}/{publisherName}/artifacttypes/vmimage/offers/{offer}/skus/{skus}/versions`;

/** Source: ResourceSku with capabilities as `az vm list-skus` prints them. */
function renderSize(call: ArmCall, size: VmSize, location: string): JsonObject {
  const zones = size.zones[location] ?? [];
  const { restricted } = call.cloud.knobs;
  const closed = zones.filter((z) => restricted.has(`${size.name}/${z}`));
  const restrictions: JsonObject[] = [];
  if (restricted.has(size.name)) {
    restrictions.push({
      ...{ type: "Location", values: [location], restrictionInfo: { locations: [location] } },
      reasonCode: "NotAvailableForSubscription",
    });
  } else if (closed.length > 0) {
    restrictions.push({
      ...{ type: "Zone", values: [location], restrictionInfo: { locations: [location], zones: closed } },
      reasonCode: "NotAvailableForSubscription",
    });
  }
  const capabilities: Readonly<Record<string, string>> = {
    ...{ MaxResourceVolumeMB: String(size.resourceDiskGiB * 1024), OSVhdSizeMB: "1047552", vCPUs: String(size.vcpus) },
    ...{ MemoryPreservingMaintenanceSupported: "False", HyperVGenerations: size.generations },
    ...{ MemoryGB: String(size.memoryGB), MaxDataDiskCount: String(size.vcpus * 2), CpuArchitectureType: size.arch },
    LowPriorityCapable: size.spot ? "True" : "False",
    ...{ PremiumIO: size.premium ? "True" : "False", VMDeploymentTypes: "IaaS", vCPUsAvailable: String(size.vcpus) },
    ...(size.gpus > 0 && { GPUs: String(size.gpus) }),
    ...(size.confidential && { ConfidentialComputingType: size.confidential }),
    ...{ vCPUsPerCore: "2", EphemeralOSDiskSupported: size.resourceDiskGiB > 0 ? "True" : "False" },
    ...{ EncryptionAtHostSupported: "True", CapacityReservationSupported: "False" },
    ...{ AcceleratedNetworkingEnabled: "True", RdmaEnabled: "False", MaxNetworkInterfaces: String(size.maxNics) },
  };
  return {
    ...{ resourceType: "virtualMachines", name: size.name, tier: "Standard", family: size.family },
    ...{ size: size.name.replace("Standard_", ""), locations: [location] },
    locationInfo: [{ location, zones, zoneDetails: [] }],
    capabilities: Object.entries(capabilities)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ({ name, value })),
    restrictions,
  };
}

function skus(call: ArmCall): ArmReply {
  const filter = call.query.get("$filter");
  const only = filter === undefined ? undefined : /^location eq '([^']+)'$/i.exec(filter.trim())?.[1]?.toLowerCase();
  if (filter !== undefined && only === undefined) {
    const message =
      "The value of parameter '$filter' is invalid: it filters by location only, as in location eq 'westus'.";
    throw new ArmError(400, "InvalidParameter", message, { target: "$filter" });
  }
  const locations = [...call.cloud.locations.keys()].filter((l) => only === undefined || l === only);
  const rows = locations.flatMap((location) => [
    ...VM_SIZES.filter((s) => s.zones[location] !== undefined).map((s) => renderSize(call, s, location)),
    {
      ...{ resourceType: "disks", name: "Premium_LRS", tier: "Premium", size: "P10", locations: [location] },
      ...{ locationInfo: [{ location, zones: call.cloud.locations.get(location) ?? [] }], restrictions: [] },
      capabilities: [{ name: "MaxSizeGiB", value: "128" }],
    },
  ]);
  return page(call, rows);
}

function usages(call: ArmCall): ArmReply {
  const location = call.params.location?.toLowerCase() ?? "";
  const { cloud } = call;
  const usage = (value: string, localizedValue: string, currentValue: number): JsonObject => ({
    ...{ unit: "Count", currentValue, limit: cloud.knobs.quota.get(value) ?? 1000, name: { value, localizedValue } },
  });
  const families = [...new Set(VM_SIZES.filter((s) => s.zones[location] !== undefined).map((s) => s.family))];
  const vms = cloud.all("Microsoft.Compute/virtualMachines").filter((vm) => vm.location === location).length;
  return page(call, [
    usage("cores", "Total Regional vCPUs", cloud.coresInUse("cores", location)),
    usage("virtualMachines", "Virtual Machines", vms),
    usage("lowPriorityCores", "Total Regional Low-priority vCPUs", cloud.coresInUse("lowPriorityCores", location)),
    ...families.map((f) => usage(f, `${f.replace(/^standard/, "Standard ")} vCPUs`, cloud.coresInUse(f, location))),
  ]);
}

function offered(call: ArmCall) {
  const same = (a: string, b: string | undefined): boolean => a.toLowerCase() === b?.toLowerCase();
  const { publisherName, offer, skus: sku } = call.params;
  const found = MARKETPLACE.find((i) => same(i.publisher, publisherName) && same(i.offer, offer) && same(i.sku, sku));
  if (found !== undefined) return found;
  const message = `Artifact: VMImage was not found. Publisher: ${publisherName}, Offer: ${offer}, Sku: ${sku}.`;
  throw new ArmError(404, "NotFound", message);
}

function imageVersions(call: ArmCall): ArmReply {
  const { versions } = offered(call);
  const top = Number(call.query.get("$top") ?? versions.length);
  const order = call.query.get("$orderby");
  if (order !== undefined && !/^name (asc|desc)$/.test(order)) {
    throw new ArmError(400, "InvalidParameter", `The value '${order}' of parameter '$orderby' is not supported.`);
  }
  const sorted = order === "name desc" ? [...versions].reverse() : versions;
  const rows = sorted.slice(0, top).map((name) => ({ name, location: call.params.location, id: `${call.id}/${name}` }));
  return { status: 200, body: rows as unknown as JsonObject };
}

function imageVersion(call: ArmCall): ArmReply {
  const { versions, facts, publisher } = offered(call);
  const { version = "" } = call.params;
  if (!versions.includes(version)) {
    throw new ArmError(
      404,
      "NotFound",
      `Artifact: VMImage was not found. Publisher: ${publisher}, Version: ${version}.`,
    );
  }
  return {
    status: 200,
    body: {
      ...{ id: call.id, name: version, location: call.params.location },
      properties: {
        ...(facts.plan && { plan: facts.plan }),
        ...{ osDiskImage: { operatingSystem: facts.osType }, hyperVGeneration: facts.generation },
        ...{ architecture: facts.arch, dataDiskImages: [] },
        features: [{ name: "SecurityType", value: facts.securityType ?? "None" }],
      },
    },
  };
}

/** What there is to choose from: sizes, quota and the marketplace. */
export const SKU_ROUTES: readonly Route[] = [
  {
    ...{ name: "ResourceSkus_List", method: "GET", path: `${IN_SUBSCRIPTION}/${COMPUTE}/skus` },
    ...{ action: "Microsoft.Compute/skus/read", handle: skus },
  },
  {
    ...{ name: "Usage_List", method: "GET", path: `${IN_SUBSCRIPTION}/${COMPUTE}/locations/{location}/usages` },
    ...{ action: "Microsoft.Compute/locations/usages/read", handle: usages },
  },
  {
    ...{ name: "VirtualMachineImages_List", method: "GET", path: VM_IMAGES },
    action: "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
    handle: imageVersions,
  },
  {
    ...{ name: "VirtualMachineImages_Get", method: "GET", path: `${VM_IMAGES}/{version}` },
    action: "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
    handle: imageVersion,
  },
];
