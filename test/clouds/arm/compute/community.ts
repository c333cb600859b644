import { ArmError } from "../arm-error.ts";
import type { JsonObject } from "../body.ts";
import { type ArmCall, COMPUTE, IN_SUBSCRIPTION, page, type Route } from "../route.ts";
import { COMMUNITY } from "./catalogue.ts";

const AT = `${IN_SUBSCRIPTION}/${COMPUTE}/locations/{location}/communityGalleries/{publicGalleryName}`;
const ACTION = "Microsoft.Compute/locations/communityGalleries/read";

function find({ params }: ArmCall) {
  const found = COMMUNITY.find(
    (c) =>
      c.gallery.toLowerCase() === params.publicGalleryName?.toLowerCase() &&
      c.location === params.location?.toLowerCase() &&
      (params.galleryImageName === undefined || c.image.toLowerCase() === params.galleryImageName.toLowerCase()),
  );
  if (found !== undefined) return found;
  throw new ArmError(404, "CommunityGalleryNotFound", `Community gallery ${params.publicGalleryName} is not found.`);
}

function renderImage(call: ArmCall): JsonObject {
  const { image, location, facts, gallery } = find(call);
  return {
    ...{ name: image, location, type: "Microsoft.Compute/Locations/CommunityGalleries/Images" },
    properties: {
      ...{ osType: facts.osType, osState: facts.osState, hyperVGeneration: facts.generation, architecture: facts.arch },
      features: [{ name: "SecurityType", value: facts.securityType ?? "Standard" }],
      identifier: { publisher: "test", offer: "podvm", sku: image },
    },
    identifier: { uniqueId: `/CommunityGalleries/${gallery}/Images/${image}` },
  };
}

function renderVersion(call: ArmCall, version: string): JsonObject {
  const { image, location, gallery } = find(call);
  return {
    ...{ name: version, location, type: "Microsoft.Compute/Locations/CommunityGalleries/Images/Versions" },
    properties: { publishedDate: "2026-02-20T00:00:00Z", excludeFromLatest: false },
    identifier: { uniqueId: `/CommunityGalleries/${gallery}/Images/${image}/Versions/${version}` },
  };
}

/** Galleries that others share with everybody, to read only. */
export const COMMUNITY_ROUTES: readonly Route[] = [
  {
    ...{ name: "CommunityGalleries_Get", method: "GET", path: AT, action: ACTION },
    handle: (call) => {
      const { gallery, location } = find(call);
      const identifier = { uniqueId: `/CommunityGalleries/${gallery}` };
      return {
        status: 200,
        body: { name: gallery, location, type: "Microsoft.Compute/Locations/CommunityGalleries", identifier },
      };
    },
  },
  {
    ...{ name: "CommunityGalleryImages_Get", method: "GET", path: `${AT}/images/{galleryImageName}`, action: ACTION },
    handle: (call) => ({ status: 200, body: renderImage(call) }),
  },
  {
    ...{ name: "CommunityGalleryImageVersions_List", method: "GET", action: ACTION },
    path: `${AT}/images/{galleryImageName}/versions`,
    handle: (call) =>
      page(
        call,
        find(call).versions.map((v) => renderVersion(call, v)),
      ),
  },
  {
    ...{ name: "CommunityGalleryImageVersions_Get", method: "GET", action: ACTION },
    path: `${AT}/images/{galleryImageName}/versions/{galleryImageVersionName}`,
    handle: (call) => {
      const version = call.params.galleryImageVersionName ?? "";
      if (!find(call).versions.includes(version)) {
        throw new ArmError(404, "CommunityGalleryImageVersionNotFound", `Image version ${version} is not found.`);
      }
      return { status: 200, body: renderVersion(call, version) };
    },
  },
];
