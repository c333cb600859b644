import { badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
import type { JsonObject } from "../body.ts";
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
import type { Disk, ImageFacts, ManagedImage } from "../resources.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_GROUP, IN_SUBSCRIPTION, type Route } from "../route.ts";
import type { Subscription } from "../subscription.ts";

const TYPE = "Microsoft.Compute/images";
const AT = `${IN_GROUP}/${COMPUTE}/images`;

function render(image: ManagedImage): JsonObject {
  return { ...shownCommon(image), properties: { provisioningState: image.state, ...image.properties } };
}

/** A disk that an image can be made of. @throws ArmError */
export function sourceDisk(cloud: Subscription, id: string, target: string): Disk {
  const disk = cloud.find("Microsoft.Compute/disks", id);
  if (disk === undefined) throw invalidParameter(target, `The source disk ${id} is not found.`);
  if (disk.blob !== undefined || disk.diskState === "ReadyToUpload" || disk.diskState === "ActiveUpload") {
    throw badRequest(
      `The source disk ${id} is in state '${disk.diskState}': nothing has been uploaded, or it is still open.`,
    );
  }
  return disk;
}

function put(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const location = checkedLocation(call, TYPE, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const properties = body.child("properties");
  const generation = properties.choice("hyperVGeneration", ["V1", "V2"] as const) ?? "V1";
  const storage = properties.child("storageProfile");
  if (!storage.has("osDisk")) throw missingParameter("storageProfile.osDisk");
  storage.flag("zoneResilient");
  const osDisk = storage.child("osDisk");
  const osType = osDisk.choice("osType", ["Linux", "Windows"] as const);
  const osState = osDisk.choice("osState", ["Generalized", "Specialized"] as const);
  if (osType === undefined) throw missingParameter("osDisk.osType");
  if (osState === undefined) throw missingParameter("osDisk.osState");
  osDisk.choice("caching", ["None", "ReadOnly", "ReadWrite"] as const);
  const id = osDisk.has("managedDisk") ? osDisk.child("managedDisk").need("id") : undefined;
  if (id === undefined) throw missingParameter("osDisk.managedDisk");
  const disk = sourceDisk(cloud, id, "osDisk.managedDisk.id");
  if (disk.location !== location) throw badRequest(`Disk ${id} is in ${disk.location}, the image in ${location}.`);
  const existing = cloud.find(TYPE, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  call.commit();
  // Managed images have no features: confidential and trusted launch VMs need a gallery.
  const facts: ImageFacts = {
    ...{
      osType,
      osState,
      generation,
      arch: "x64",
      securityType: undefined,
      sizeGiB: disk.sizeGiB,
      content: disk.content,
    },
  };
  const image: ManagedImage = existing ?? {
    ...newCommon(cloud, call.id, { location, tags }),
    ...{ type: TYPE, facts },
    properties: {
      hyperVGeneration: generation,
      storageProfile: {
        osDisk: {
          osType,
          osState,
          managedDisk: { id },
          diskSizeGB: disk.sizeGiB,
          caching: "ReadWrite",
          storageAccountType: "Standard_LRS",
        },
        ...{ dataDisks: [], zoneResilient: false },
      },
    },
  };
  cloud.put(image);
  const afterMs = cloud.knobs.imageMs;
  const operation = finishPut(cloud, image, { namespace: "Microsoft.Compute", apiVersion: call.apiVersion, afterMs });
  return { status: existing === undefined ? 201 : 200, body: render(image), operation };
}

/** Managed images. */
export const IMAGE_ROUTES: readonly Route[] = [
  {
    ...{ name: "Images_Get", method: "GET", path: `${AT}/{imageName}`, action: `${TYPE}/read` },
    handle: (call) => ({ status: 200, body: render(read(call, TYPE)) }),
  },
  { name: "Images_CreateOrUpdate", method: "PUT", path: `${AT}/{imageName}`, action: `${TYPE}/write`, handle: put },
  {
    ...{ name: "Images_Delete", method: "DELETE", path: `${AT}/{imageName}`, action: `${TYPE}/delete` },
    handle: (call) =>
      beginDelete(call, TYPE, {
        ...{ namespace: "Microsoft.Compute", afterMs: call.cloud.knobs.imageMs, check: () => undefined },
      }),
  },
  ...[
    { name: "Images_ListByResourceGroup", path: AT },
    { name: "Images_List", path: `${IN_SUBSCRIPTION}/${COMPUTE}/images` },
  ].map(
    ({ name, path }): Route => ({
      ...{ name, method: "GET", path, action: `${TYPE}/read` },
      handle: (call) => list(call, TYPE, render),
    }),
  ),
];
