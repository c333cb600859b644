import { ArmError, badRequest, invalidParameter, missingParameter } from "../arm-error.ts";
import type { Body, JsonObject } from "../body.ts";
import {
  beginDelete,
  checkedLocation,
  checkedTags,
  checkSameLocation,
  finishPut,
  newCommon,
  read,
  shownCommon,
} from "../lifecycle.ts";
import type { Operation } from "../operation.ts";
import type { Gallery, GalleryImage, GalleryVersion, ResourceOf, ResourceType } from "../resources.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_GROUP, page, type Route } from "../route.ts";
import { COMMUNITY_ROUTES } from "./community.ts";
import { sourceDisk } from "./images.ts";

const GALLERY = "Microsoft.Compute/galleries";
const IMAGE = "Microsoft.Compute/galleries/images";
const VERSION = "Microsoft.Compute/galleries/images/versions";
const AT = `${IN_GROUP}/${COMPUTE}/galleries`;
const IMAGES = `${AT}/{galleryName}/images`;
const VERSIONS = `${IMAGES}/{galleryImageName}/versions`;
/** Source: learn.microsoft.com "Trusted launch and confidential VM" of galleries, feature SecurityType. */
const SECURITY_TYPES = [
  ...["Standard", "TrustedLaunch", "TrustedLaunchSupported", "ConfidentialVM", "ConfidentialVMSupported"],
  ...["TrustedLaunchAndConfidentialVMSupported"],
];

function render(r: Gallery | GalleryImage | GalleryVersion): JsonObject {
  return { ...shownCommon(r), properties: { provisioningState: r.state, ...r.properties } };
}

function finish(call: ArmCall, resource: Gallery | GalleryImage | GalleryVersion): Operation {
  const afterMs = call.cloud.knobs.imageMs;
  return finishPut(call.cloud, resource, { namespace: "Microsoft.Compute", apiVersion: call.apiVersion, afterMs });
}

function putGallery(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const name = call.params.galleryName ?? "";
  if (!/^[A-Za-z0-9]([A-Za-z0-9_.]{0,78}[A-Za-z0-9])?$/.test(name)) {
    throw invalidParameter(
      "galleryName",
      `The entity name 'galleryName' is invalid according to its validation rule: ^[^_\\W][\\w._]{0,79}(?<![-.])$.`,
    );
  }
  const location = checkedLocation(call, GALLERY, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const description = body.child("properties").text("description");
  const existing = cloud.find(GALLERY, call.id);
  if (existing !== undefined) checkSameLocation(existing, location);
  call.commit();
  const gallery: Gallery = {
    ...(existing ?? newCommon(cloud, call.id, { location, tags })),
    type: GALLERY,
    properties: {
      ...(description && { description }),
      identifier: { uniqueName: `${cloud.id}-${name.toUpperCase()}` },
    },
  };
  if (tags !== undefined) gallery.tags = new Map(tags);
  cloud.put(gallery);
  return { status: existing === undefined ? 201 : 200, body: render(gallery), operation: finish(call, gallery) };
}

function readFeatures(body: Body): { readonly securityType: string | undefined; readonly shown: JsonObject[] } {
  const shown = body.items("features").map((f) => {
    f.keep("startsAtVersion");
    return { name: f.need("name"), value: f.need("value") };
  });
  const given = shown.find((f) => f.name === "SecurityType")?.value;
  if (given === undefined) return { securityType: undefined, shown };
  const known = SECURITY_TYPES.find((t) => t.toLowerCase() === given.toLowerCase());
  if (known === undefined)
    throw invalidParameter("features", `The value '${given}' of feature 'SecurityType' is invalid.`);
  return { securityType: known === "Standard" ? undefined : known, shown };
}

function putImage(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  cloud.need(GALLERY, call.id.slice(0, call.id.toLowerCase().lastIndexOf("/images/")));
  const location = checkedLocation(call, IMAGE, body.need("location"));
  const tags = checkedTags(body.map("tags"));
  const p = body.child("properties");
  const osType = p.choice("osType", ["Linux", "Windows"] as const);
  const osState = p.choice("osState", ["Generalized", "Specialized"] as const);
  if (osType === undefined) throw missingParameter("galleryImage.properties.osType");
  if (osState === undefined) throw missingParameter("galleryImage.properties.osState");
  const generation = p.choice("hyperVGeneration", ["V1", "V2"] as const) ?? "V1";
  const arch = p.choice("architecture", ["x64", "Arm64"] as const) ?? "x64";
  if (!p.has("identifier")) throw missingParameter("galleryImage.properties.identifier");
  const identifier = p.child("identifier");
  const named = {
    publisher: identifier.need("publisher"),
    offer: identifier.need("offer"),
    sku: identifier.need("sku"),
  };
  const { securityType, shown } = readFeatures(p);
  if (securityType !== undefined && generation !== "V2") {
    throw invalidParameter(
      "features",
      `Feature 'SecurityType' with value '${securityType}' requires hyperVGeneration 'V2'.`,
    );
  }
  const clash = cloud
    .all(IMAGE)
    .filter(
      (i) => i.id.toLowerCase() !== call.id.toLowerCase() && i.id.split("/images/")[0] === call.id.split("/images/")[0],
    )
    .find((i) => JSON.stringify(i.properties.identifier) === JSON.stringify(named));
  if (clash !== undefined) {
    throw new ArmError(
      409,
      "Conflict",
      `The gallery image ${clash.id} already has this combination of publisher, offer and sku.`,
    );
  }
  const rest = Object.fromEntries(
    ["description", "eula", "recommended"].filter((n) => p.has(n)).map((n) => [n, p.keep(n)]),
  );
  const properties = {
    osType,
    osState,
    hyperVGeneration: generation,
    architecture: arch,
    identifier: named,
    ...(shown.length > 0 && { features: shown }),
    ...rest,
  };
  const existing = cloud.find(IMAGE, call.id);
  if (existing !== undefined) {
    checkSameLocation(existing, location);
    for (const name of ["osType", "osState", "hyperVGeneration", "architecture", "features", "identifier"] as const) {
      if (JSON.stringify(existing.properties[name]) === JSON.stringify((properties as JsonObject)[name])) continue;
      const target = `galleryImage.properties.${name}`;
      throw new ArmError(409, "PropertyChangeNotAllowed", `Changing property '${target}' is not allowed.`, { target });
    }
  }
  call.commit();
  const facts = { osType, osState, generation, arch, securityType };
  const image: GalleryImage = {
    ...(existing ?? newCommon(cloud, call.id, { location, tags })),
    type: IMAGE,
    facts,
    properties,
  };
  if (tags !== undefined) image.tags = new Map(tags);
  cloud.put(image);
  return { status: existing === undefined ? 201 : 200, body: render(image), operation: finish(call, image) };
}

function putVersion(call: ArmCall): ArmReply {
  const { cloud, body } = call;
  const image = cloud.need(IMAGE, call.id.slice(0, call.id.toLowerCase().lastIndexOf("/versions/")));
  const name = call.params.galleryImageVersionName ?? "";
  if (!/^\d+\.\d+\.\d+$/.test(name) || name.split(".").some((n) => Number(n) > 2 ** 31 - 1)) {
    throw invalidParameter(
      "galleryImageVersionName",
      "The value of galleryImageVersionName is invalid: it is MajorVersion.MinorVersion.Patch in 32-bit integers.",
    );
  }
  const location = checkedLocation(call, VERSION, body.need("location"));
  if (location !== image.location) {
    throw badRequest(`The gallery image version must be in the location of its image, ${image.location}.`);
  }
  const tags = checkedTags(body.map("tags"));
  const p = body.child("properties");
  p.child("safetyProfile").flag("allowDeletionOfReplicatedLocations");
  p.child("safetyProfile").flag("blockDeletionBeforeEndOfLife");
  const publishing = p.child("publishingProfile");
  const excludeFromLatest = publishing.flag("excludeFromLatest") ?? false;
  publishing.number("replicaCount");
  publishing.text("endOfLifeDate");
  publishing.choice("replicationMode", ["Full", "Shallow"] as const);
  publishing.choice("storageAccountType", ["Standard_LRS", "Standard_ZRS", "Premium_LRS", "StandardSSD_LRS"] as const);
  const targets = publishing.items("targetRegions").map((r) => {
    r.number("regionalReplicaCount");
    r.choice("storageAccountType", ["Standard_LRS", "Standard_ZRS", "Premium_LRS"] as const);
    r.flag("excludeFromLatest");
    return checkedLocation(call, VERSION, r.need("name"));
  });
  const regions = targets.length === 0 ? [location] : targets;
  if (!regions.includes(location)) {
    throw invalidParameter(
      "publishingProfile.targetRegions",
      `The location ${location} of the version must be among its target regions.`,
    );
  }
  const storage = p.child("storageProfile");
  if (!storage.has("osDiskImage")) throw missingParameter("galleryImageVersion.properties.storageProfile.osDiskImage");
  const osDisk = storage.child("osDiskImage");
  osDisk.choice("hostCaching", ["None", "ReadOnly", "ReadWrite"] as const);
  const id = osDisk.child("source").need("id");
  const disk = sourceDisk(cloud, id, "storageProfile.osDiskImage.source.id");
  if (disk.generation !== undefined && disk.generation !== image.facts.generation) {
    throw badRequest(
      `The source disk's hyperVGeneration '${disk.generation}' does not match the image's '${image.facts.generation}'.`,
    );
  }
  const existing = cloud.find(VERSION, call.id);
  if (existing !== undefined)
    throw new ArmError(409, "PropertyChangeNotAllowed", "Changing property 'storageProfile' is not allowed.");
  call.commit();
  const version: GalleryVersion = {
    ...newCommon(cloud, call.id, { location, tags }),
    ...{ type: VERSION, regions, content: disk.content, sizeGiB: disk.sizeGiB, excludeFromLatest },
    properties: {
      publishingProfile: {
        targetRegions: regions.map((r) => ({ name: r, regionalReplicaCount: 1, storageAccountType: "Standard_LRS" })),
        ...{
          replicaCount: 1,
          excludeFromLatest,
          publishedDate: new Date(cloud.now()).toISOString(),
          storageAccountType: "Standard_LRS",
        },
      },
      storageProfile: { osDiskImage: { sizeInGB: disk.sizeGiB, hostCaching: "ReadWrite", source: { id } } },
    },
  };
  cloud.put(version);
  return { status: 201, body: render(version), operation: finish(call, version) };
}

function inside<T extends ResourceType>(call: ArmCall, type: T, prefix: string): ResourceOf<T>[] {
  const start = `${prefix}/`.toLowerCase();
  return call.cloud.all(type).filter((r) => r.id.toLowerCase().startsWith(start));
}

function remove(type: typeof GALLERY | typeof IMAGE | typeof VERSION): Route["handle"] {
  return (call) =>
    beginDelete(call, type, {
      ...{ namespace: "Microsoft.Compute", afterMs: call.cloud.knobs.imageMs },
      check: (resource) => {
        const children = [...inside(call, IMAGE, resource.id), ...inside(call, VERSION, resource.id)];
        if (children.length === 0) return;
        const message = `Can not delete resource before nested resources are deleted. Nested resources: '${children.map((c) => c.id).join(",")}'.`;
        throw new ArmError(409, "CannotDeleteResource", message);
      },
    });
}

interface Kind {
  readonly group: string;
  readonly type: typeof GALLERY | typeof IMAGE | typeof VERSION;
  readonly at: string;
  /** Of the last parameter of the path. */
  readonly name: string;
  readonly put: Route["handle"];
  readonly list: string;
}
const KINDS: readonly Kind[] = [
  { group: "Galleries", type: GALLERY, at: AT, name: "galleryName", put: putGallery, list: "ListByResourceGroup" },
  { group: "GalleryImages", type: IMAGE, at: IMAGES, name: "galleryImageName", put: putImage, list: "ListByGallery" },
  {
    ...{ group: "GalleryImageVersions", type: VERSION, at: VERSIONS, name: "galleryImageVersionName" },
    ...{ put: putVersion, list: "ListByGalleryImage" },
  },
];

/** Compute galleries, their images and versions. */
export const GALLERY_ROUTES: readonly Route[] = [
  ...COMMUNITY_ROUTES,
  ...KINDS.flatMap(({ group, type, at, name, put, list }): Route[] => [
    {
      ...{ name: `${group}_Get`, method: "GET", path: `${at}/{${name}}`, action: `${type}/read` },
      handle: (call) => ({ status: 200, body: render(read(call, type)) }),
    },
    { name: `${group}_CreateOrUpdate`, method: "PUT", path: `${at}/{${name}}`, action: `${type}/write`, handle: put },
    {
      name: `${group}_Delete`,
      method: "DELETE",
      path: `${at}/{${name}}`,
      action: `${type}/delete`,
      handle: remove(type),
    },
    {
      ...{ name: `${group}_${list}`, method: "GET", path: at, action: `${type}/read` },
      handle: (call) => page(call, inside(call, type, call.id).map(render)),
    },
  ]),
];
