import { randomUUID } from "node:crypto";
import { ArmError, badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
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
import type { Disk, DiskState } from "../resources.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_GROUP, IN_SUBSCRIPTION, type Route } from "../route.ts";
import { checkDiskName } from "./vm-storage.ts";

const TYPE = "Microsoft.Compute/disks";
const AT = `${IN_GROUP}/${COMPUTE}/disks`;
const SKUS = [
  "Standard_LRS",
  "Premium_LRS",
  "StandardSSD_LRS",
  "UltraSSD_LRS",
  "Premium_ZRS",
  "StandardSSD_ZRS",
  "PremiumV2_LRS",
] as const;
const SECURITY_TYPES = [
  ...["TrustedLaunch", "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey", "ConfidentialVM_NonPersistedTPM"],
  ...["ConfidentialVM_DiskEncryptedWithPlatformKey", "ConfidentialVM_DiskEncryptedWithCustomerKey"],
] as const;
/** 20 MiB and a VHD footer; 32 TiB and a footer. Source: CreationData.uploadSizeBytes. */
const [LEAST_UPLOAD, MOST_UPLOAD] = [20_972_032, 35_183_298_347_520];
const GIB = 2 ** 30;

export function renderDisk(disk: Disk): JsonObject {
  return {
    ...shownCommon(disk),
    ...(disk.vmId && { managedBy: disk.vmId }),
    properties: {
      ...{ provisioningState: disk.state, diskState: disk.diskState, diskSizeGB: disk.sizeGiB },
      ...{ diskSizeBytes: disk.sizeGiB * GIB, timeCreated: new Date(disk.createdAt).toISOString() },
      ...(disk.osType && { osType: disk.osType }),
      ...(disk.generation && { hyperVGeneration: disk.generation }),
      ...(disk.securityType && { securityProfile: { securityType: disk.securityType } }),
      ...{ diskIOPSReadWrite: 500, diskMBpsReadWrite: 60, encryption: { type: "EncryptionAtRestWithPlatformKey" } },
      ...{ networkAccessPolicy: "AllowAll", publicNetworkAccess: "Enabled" },
      ...disk.properties,
    },
  };
}

interface Creation {
  readonly option: "Empty" | "Upload" | "Copy" | "FromImage";
  readonly uploadBytes: number | undefined;
  readonly source: Disk | undefined;
  readonly shown: Readonly<Record<string, Json>>;
}

function readCreation(call: ArmCall, body: Body): Creation {
  const option = body.choice("createOption", ["Empty", "Upload", "Copy", "FromImage"] as const);
  if (option === undefined) throw missingParameter("creationData.createOption");
  const uploadBytes = body.number("uploadSizeBytes");
  if (option === "Upload") {
    if (uploadBytes === undefined) throw missingParameter("creationData.uploadSizeBytes");
    if (uploadBytes < LEAST_UPLOAD || uploadBytes > MOST_UPLOAD || uploadBytes % 512 !== 0) {
      const message = `The value '${uploadBytes}' of parameter 'uploadSizeBytes' is out of range. The value must be between '${LEAST_UPLOAD}' and '${MOST_UPLOAD}' and a multiple of 512.`;
      throw invalidParameter("creationData.uploadSizeBytes", message);
    }
  } else if (uploadBytes !== undefined) {
    throw invalidParameter(
      "creationData.uploadSizeBytes",
      "uploadSizeBytes is allowed only with createOption 'Upload'.",
    );
  }
  const sourceId = body.text("sourceResourceId");
  const source = sourceId === undefined ? undefined : call.cloud.find(TYPE, sourceId);
  if (option === "Copy" && source === undefined) {
    throw new ArmError(404, "ResourceNotFound", `Source disk ${sourceId ?? ""} is not found.`);
  }
  if (option === "FromImage") throw badRequest("This endpoint makes disks of images only along with VMs.");
  return {
    ...{ option, uploadBytes, source },
    shown: {
      createOption: option,
      ...(uploadBytes !== undefined && { uploadSizeBytes: uploadBytes }),
      ...(sourceId !== undefined && { sourceResourceId: sourceId }),
    },
  };
}

function put(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  checkDiskName(call.params.diskName ?? "");
  const location = checkedLocation(call, TYPE, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const zones = body.texts("zones");
  const sku = body.child("sku").choice("name", SKUS) ?? "Standard_LRS";
  const properties = body.child("properties");
  for (const name of ["networkAccessPolicy", "publicNetworkAccess", "supportedCapabilities"]) properties.keep(name);
  const osType = properties.choice("osType", ["Linux", "Windows"] as const);
  const generation = properties.choice("hyperVGeneration", ["V1", "V2"] as const);
  const securityType = properties.child("securityProfile").choice("securityType", SECURITY_TYPES);
  if (securityType !== undefined && generation !== "V2") {
    throw badRequest("securityProfile can only be set for disks with hyperVGeneration 'V2'.");
  }
  const creation = readCreation(call, properties.child("creationData"));
  const asked = properties.number("diskSizeGB");
  if (creation.option === "Upload" && asked !== undefined) {
    throw invalidParameter("diskSizeGB", "Parameter 'diskSizeGB' is not allowed with createOption 'Upload'.");
  }
  const upload = creation.uploadBytes === undefined ? undefined : Math.ceil((creation.uploadBytes - 512) / GIB);
  const sizeGiB = asked ?? upload ?? creation.source?.sizeGiB;
  if (sizeGiB === undefined) throw missingParameter("diskSizeGB");
  const existing = cloud.find(TYPE, call.id);
  if (existing !== undefined) {
    checkSameLocation(existing, location);
    if (JSON.stringify(existing.properties.creationData) !== JSON.stringify(creation.shown)) {
      throw new ArmError(409, "PropertyChangeNotAllowed", "Changing property 'creationData' is not allowed.", {
        target: "creationData",
      });
    }
  }
  call.commit();
  const disk: Disk = existing ?? {
    ...newCommon(cloud, call.id, { location, zones, tags }),
    ...{ type: TYPE, sizeGiB, osType, generation, securityType, vmId: undefined, blob: undefined },
    ...{ diskState: creation.option === "Upload" ? "ReadyToUpload" : "Unattached", content: creation.source?.content },
    ...{ uploadBytes: creation.uploadBytes, shown: { sku: { name: sku, tier: sku.split("_")[0] } } },
    properties: { creationData: creation.shown, uniqueId: randomUUID() },
  };
  if (existing !== undefined && tags !== undefined) existing.tags = new Map(tags);
  cloud.put(disk);
  disk.state = "Updating";
  const afterMs = cloud.knobs.diskMs;
  const operation = finishPut(cloud, disk, { namespace: "Microsoft.Compute", apiVersion: call.apiVersion, afterMs });
  return { status: existing === undefined ? 202 : 200, body: renderDisk(disk), operation };
}

function parent(call: ArmCall): Disk {
  return call.cloud.need(TYPE, call.id.slice(0, call.id.lastIndexOf("/")));
}

function grant(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const disk = parent(call);
  const access = body.choice("access", ["Read", "Write"] as const);
  const seconds = body.number("durationInSeconds");
  if (access === undefined) throw missingParameter("access");
  if (seconds === undefined) throw missingParameter("durationInSeconds");
  if (seconds < 1 || seconds > 2 ** 31)
    throw invalidParameter("durationInSeconds", "durationInSeconds is out of range.");
  if (body.choice("fileFormat", ["VHD", "VHDX"] as const) === "VHDX")
    throw badRequest("VHDX is not supported for this disk.");
  if (body.flag("getSecureVMGuestStateSAS") === true) {
    throw badRequest(
      "getSecureVMGuestStateSAS is allowed only for disks that are uploaded with createOption 'UploadPreparedSecure'.",
    );
  }
  const wanted: DiskState = access === "Write" ? "ReadyToUpload" : "Unattached";
  const open: DiskState = access === "Write" ? "ActiveUpload" : "ActiveSAS";
  if (disk.diskState !== wanted && disk.diskState !== open) {
    const message = `Cannot perform operation BeginGetAccess with access '${access}' on disk '${disk.name}' in state '${disk.diskState}'.`;
    throw new ArmError(409, "OperationNotAllowed", message);
  }
  if (disk.operation !== undefined) throw new ArmError(409, "Conflict", `Disk '${disk.name}' is being changed.`);
  call.commit();
  disk.blob ??= `/md-impexp-${cloud.random(6)}/${cloud.random(6)}/abcd`;
  disk.diskState = open;
  const permissions = access === "Write" ? "rw" : "r";
  const accessSAS = `${call.base}${disk.blob}?${cloud.access.sign(disk.blob, permissions, seconds)}`;
  const operation = cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: disk.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + cloud.knobs.diskMs,
    finish: () => ({ accessSAS }),
  });
  return { status: 202, operation };
}

function revoke(call: ArmCall): ArmReply {
  const { cloud } = call;
  const disk = parent(call);
  call.commit();
  const { blob } = disk;
  const uploaded = disk.diskState === "ActiveUpload";
  const operation = cloud.begin({
    ...{ namespace: "Microsoft.Compute", location: disk.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + cloud.knobs.diskMs,
    finish: () => {
      if (blob !== undefined) cloud.access.revoke(blob);
      if (uploaded || disk.diskState === "ActiveSAS") disk.diskState = "Unattached";
      disk.blob = undefined;
      return undefined;
    },
  });
  return { status: 202, operation };
}

/** Managed disks. */
export const DISK_ROUTES: readonly Route[] = [
  {
    ...{ name: "Disks_Get", method: "GET", path: `${AT}/{diskName}`, action: `${TYPE}/read` },
    handle: (call) => ({ status: 200, body: renderDisk(read(call, TYPE)) }),
  },
  { name: "Disks_CreateOrUpdate", method: "PUT", path: `${AT}/{diskName}`, action: `${TYPE}/write`, handle: put },
  {
    ...{ name: "Disks_Delete", method: "DELETE", path: `${AT}/{diskName}`, action: `${TYPE}/delete` },
    handle: (call) =>
      beginDelete(call, TYPE, {
        ...{ namespace: "Microsoft.Compute", afterMs: call.cloud.knobs.diskMs },
        check: (disk) => {
          if (disk.vmId !== undefined) {
            throw new ArmError(409, "OperationNotAllowed", `Disk ${disk.name} is attached to VM ${disk.vmId}.`);
          }
          if (disk.blob !== undefined) {
            const message = `There is an active shared access signature outstanding for disk ${disk.name}. Call EndGetAccess before deleting the disk. To learn more about SAS, visit https://aka.ms/azuredisksas`;
            throw new ArmError(409, "OperationNotAllowed", message);
          }
        },
      }),
  },
  {
    ...{ name: "Disks_GrantAccess", method: "POST", path: `${AT}/{diskName}/beginGetAccess` },
    ...{ action: `${TYPE}/beginGetAccess/action`, handle: grant },
  },
  {
    ...{ name: "Disks_RevokeAccess", method: "POST", path: `${AT}/{diskName}/endGetAccess` },
    ...{ action: `${TYPE}/endGetAccess/action`, handle: revoke },
  },
  ...[
    { name: "Disks_ListByResourceGroup", path: AT },
    { name: "Disks_List", path: `${IN_SUBSCRIPTION}/${COMPUTE}/disks` },
  ].map(
    ({ name, path }): Route => ({
      ...{ name, method: "GET", path, action: `${TYPE}/read` },
      handle: (call) => list(call, TYPE, renderDisk),
    }),
  ),
];
