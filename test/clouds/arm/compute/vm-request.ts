import { ArmError, badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import { checkedLocation, checkedTags } from "../lifecycle.ts";
import type { ArmCall } from "../route.ts";
import { findSize, type VmSize } from "../vm-sizes.ts";
import { type ChosenImage, chooseImage } from "./image-reference.ts";
import { type OsProfile, readOsProfile } from "./os-profile.ts";
import { type NetworkRequest, readNetworkProfile } from "./vm-network.ts";
import { checkSecurity, readSecurity } from "./vm-security.ts";
import { type DataDiskRequest, type OsDiskRequest, readDataDisks, readOsDisk } from "./vm-storage.ts";

/** A PUT of a VM that has been read and found right in itself. */
export interface VmRequest {
  readonly location: string;
  readonly tags: ReadonlyMap<string, string> | undefined;
  readonly zones: readonly string[];
  readonly size: VmSize;
  readonly image: ChosenImage | undefined;
  readonly osDisk: OsDiskRequest;
  readonly dataDisks: readonly DataDiskRequest[];
  readonly osProfile: OsProfile | undefined;
  readonly network: NetworkRequest;
  readonly userData: string | undefined;
  readonly spot: boolean;
  readonly bootDiagnostics: boolean;
  /** Top-level parts that are only shown again. */
  readonly shown: Readonly<Record<string, Json>>;
  /** Properties that are only shown again. */
  readonly properties: Readonly<Record<string, Json>>;
}

/** What clients send back that they have read before. */
const READ_ONLY = ["provisioningState", "vmId", "timeCreated", "instanceView"] as const;
const MAX_USER_DATA = 65_536;

/** Reads the body of `PUT virtualMachines/{name}`. @throws ArmError as Compute refuses it */
export function readVmRequest(call: ArmCall): VmRequest {
  const { body } = call;
  for (const name of ["id", "name", "type", "etag", "resources", "systemData"]) body.keep(name);
  const location = checkedLocation(call, "Microsoft.Compute/virtualMachines", body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const zones = readZones(call, location);
  const shown: Record<string, Json> = {};
  if (body.has("plan")) shown.plan = readPlan(body.child("plan"));
  if (body.has("identity")) shown.identity = readIdentity(body.child("identity"));
  const properties = body.child("properties");
  for (const name of READ_ONLY) properties.keep(name);
  const size = readSize(properties.child("hardwareProfile"));
  const storage = properties.child("storageProfile");
  if (!properties.has("storageProfile")) throw missingParameter("storageProfile");
  const osDisk = readOsDisk(call, storage.child("osDisk"));
  const image = readImage(call, storage, { osDisk, location });
  const dataDisks = readDataDisks(call, storage, { location, zones });
  const controller = storage.choice("diskControllerType", ["SCSI", "NVMe"] as const);
  const osProfile = readOsProfile(properties, { image, vmName: call.params.vmName ?? "" });
  const network = readNetworkProfile(call, properties, location);
  const security = readSecurity(properties.child("securityProfile"));
  const priority = readPriority(properties);
  const diagnostics = properties.child("diagnosticsProfile").child("bootDiagnostics");
  const bootDiagnostics = diagnostics.flag("enabled") ?? false;
  const storageUri = diagnostics.text("storageUri");
  const userData = readUserData(properties);
  checkSecurity(security, { size, image, osDisk });
  checkImageFits(size, image, { plan: shown.plan, osDisk });
  if (network.count > size.maxNics) {
    const message = `The number of network interfaces for virtual machine ${call.params.vmName} exceeds the maximum allowed for the virtual machine size ${size.name}. The number of network interfaces is ${network.count} and the maximum allowed is ${size.maxNics}.`;
    throw new ArmError(400, "NetworkInterfaceCountExceeded", message);
  }
  if (priority.spot && !size.spot) throw badRequest(`Spot is not supported for the VM size ${size.name}.`);
  return {
    ...{ location, tags, zones, size, image, osDisk, dataDisks, osProfile, network, userData, shown },
    ...{ spot: priority.spot, bootDiagnostics },
    properties: {
      ...(security.shown && { securityProfile: security.shown }),
      ...(diagnostics.has("enabled") && {
        diagnosticsProfile: { bootDiagnostics: { enabled: bootDiagnostics, ...(storageUri && { storageUri }) } },
      }),
      ...priority.shown,
      ...(controller && { diskControllerType: controller }),
      ...readRest(properties),
    },
  };
}

/** Parts that have no effect here, and are shown again as they were given. */
function readRest(properties: Body): Record<string, Json> {
  const rest = ["extensionsTimeBudget", "scheduledEventsProfile", "additionalCapabilities", "licenseType"];
  return Object.fromEntries(rest.filter((name) => properties.has(name)).map((name) => [name, properties.keep(name)]));
}

function readZones({ body, cloud, params }: ArmCall, location: string): readonly string[] {
  const zones = body.texts("zones");
  if (zones.length > 1) throw invalidParameter("zones", "A virtual machine can be in one availability zone only.");
  const known = cloud.locations.get(location) ?? [];
  const wrong = zones.find((z) => !known.includes(z));
  if (wrong === undefined) return zones;
  const message = `The zone(s) '${wrong}' for resource 'Microsoft.Compute/virtualMachines/${params.vmName}' is not supported. The supported zones for location '${location}' are '${known.join(",")}'`;
  throw new ArmError(400, "InvalidAvailabilityZone", message);
}

function readSize(hardware: Body): VmSize {
  const name = hardware.text("vmSize");
  if (name === undefined) throw missingParameter("vmSize");
  const size = findSize(name);
  if (size === undefined) throw invalidParameter("vmSize", `The value ${name} provided for the VM size is not valid.`);
  return size;
}

function readImage(
  call: ArmCall,
  storage: Body,
  { osDisk, location }: { readonly osDisk: OsDiskRequest; readonly location: string },
): ChosenImage | undefined {
  if (!storage.has("imageReference")) {
    if (osDisk.createOption === "FromImage") throw missingParameter("imageReference");
    return undefined;
  }
  if (osDisk.createOption === "Attach") {
    throw invalidParameter("imageReference", "Parameter 'imageReference' is not allowed.");
  }
  return chooseImage(call.cloud, storage.child("imageReference"), location);
}

function readPlan(body: Body): Readonly<Record<string, Json>> {
  const promotionCode = body.text("promotionCode");
  return {
    ...{ name: body.need("name"), publisher: body.need("publisher"), product: body.need("product") },
    ...(promotionCode && { promotionCode }),
  };
}

function readIdentity(body: Body): Readonly<Record<string, Json>> {
  const type = body.text("type") ?? "None";
  const user = body.keep("userAssignedIdentities");
  return { type, ...(user !== undefined && user !== null && { userAssignedIdentities: user }) };
}

function readPriority(properties: Body): { readonly spot: boolean; readonly shown: Readonly<Record<string, Json>> } {
  const priority = properties.choice("priority", ["Regular", "Low", "Spot"] as const);
  const evictionPolicy = properties.choice("evictionPolicy", ["Deallocate", "Delete"] as const);
  const billing = properties.child("billingProfile");
  const maxPrice = billing.number("maxPrice");
  const spot = priority === "Spot" || priority === "Low";
  if (!spot && evictionPolicy !== undefined) {
    throw invalidParameter("evictionPolicy", "Eviction policy can be set only on Azure Spot Virtual Machines.");
  }
  if (!spot && maxPrice !== undefined && maxPrice !== -1) {
    throw invalidParameter("billingProfile", "Max price can be set only on Azure Spot Virtual Machines.");
  }
  if (maxPrice !== undefined && maxPrice !== -1 && maxPrice <= 0) {
    throw invalidParameter("maxPrice", "Max price must be -1 or greater than zero.");
  }
  return {
    spot,
    shown: {
      ...(priority && { priority }),
      ...(evictionPolicy && { evictionPolicy }),
      ...(maxPrice !== undefined && { billingProfile: { maxPrice } }),
    },
  };
}

/** Source: learn.microsoft.com "User Data for Azure Virtual Machine": base64, at most 64 KB. */
function readUserData(properties: Body): string | undefined {
  const given = properties.text("userData");
  if (given === undefined) return undefined;
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(given) || given.length % 4 !== 0) {
    throw invalidParameter("userData", "The value of parameter 'userData' must be in Base64 encoded format.");
  }
  if (given.length > MAX_USER_DATA) {
    const message = `The value of parameter 'userData' exceeds the maximum length of ${MAX_USER_DATA} characters.`;
    throw invalidParameter("userData", message);
  }
  return given;
}

function checkImageFits(
  size: VmSize,
  image: ChosenImage | undefined,
  more: { readonly plan: Json; readonly osDisk: OsDiskRequest },
): void {
  if (image === undefined) return;
  const { facts } = image;
  if (facts.generation === "V1" && size.generations === "V2") {
    throw badRequest(
      `The selected VM size '${size.name}' cannot boot Hypervisor Generation '1'. If this was a Create operation please check that the Hypervisor Generation of the Image matches the Hypervisor Generation of the selected VM Size. If this was an Update operation please select a Hypervisor Generation '1' VM Size. For more information, see https://aka.ms/azuregen2vm`,
    );
  }
  if (facts.arch !== size.arch) {
    throw badRequest(
      `The selected VM size '${size.name}' cannot boot with OS image or disk. Please check that disk CPU architecture is supported by VM size.`,
    );
  }
  if (more.osDisk.sizeGiB !== undefined && more.osDisk.sizeGiB < facts.sizeGiB) {
    const message = `The specified disk size ${more.osDisk.sizeGiB} GB is smaller than the size of the corresponding disk in the VM image: ${facts.sizeGiB} GB. This is not allowed. Please choose equal or greater size or do not specify an explicit size.`;
    throw invalidParameter("osDisk.diskSizeGB", message);
  }
  if (facts.plan !== undefined && more.plan === undefined) {
    const message = `Creating a virtual machine from Marketplace image or a custom image sourced from a Marketplace image requires Plan information in the request. VM: '/${facts.plan.product}'.`;
    throw new ArmError(400, "VMMarketplaceInvalidInput", message);
  }
}
