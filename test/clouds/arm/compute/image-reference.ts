import { ArmError, badRequest, invalidParameter } from "../arm-error.ts";
import type { Body, Json } from "../body.ts";
import { lastName, parseResourceId } from "../resource-id.ts";
import type { GalleryImage, GalleryVersion, ImageFacts } from "../resources.ts";
import type { Subscription } from "../subscription.ts";
import { COMMUNITY, MARKETPLACE } from "./catalogue.ts";

export interface ChosenImage {
  readonly facts: ImageFacts;
  /** As the VM shows it. */
  readonly shown: Readonly<Record<string, Json>>;
}

/** Reads `imageReference`: exactly one of its ways to name an image. @throws ArmError as Compute refuses it */
export function chooseImage(cloud: Subscription, body: Body, location: string): ChosenImage {
  const id = body.text("id");
  const community = body.text("communityGalleryImageId");
  const shared = body.text("sharedGalleryImageId");
  const [publisher, offer, sku] = [body.text("publisher"), body.text("offer"), body.text("sku")];
  const version = body.text("version");
  body.keep("exactVersion");
  const ways = [id, community, shared, publisher].filter((w) => w !== undefined).length;
  if (ways > 1 || (id !== undefined && version !== undefined)) {
    throw invalidParameter("imageReference", "imageReference may name an image in one way only.");
  }
  if (community !== undefined) return fromCommunity(cloud, community, location);
  if (shared !== undefined) throw imageNotFound(shared, location);
  if (id !== undefined) return fromId(cloud, id, location);
  for (const [name, value] of Object.entries({ publisher, offer, sku, version })) {
    if (value === undefined)
      throw invalidParameter(
        `imageReference.${name}`,
        `Required parameter 'imageReference.${name}' is missing (null).`,
      );
  }
  return fromMarketplace(
    { publisher: publisher ?? "", offer: offer ?? "", sku: sku ?? "", version: version ?? "" },
    location,
  );
}

function fromMarketplace(
  asked: { readonly publisher: string; readonly offer: string; readonly sku: string; readonly version: string },
  location: string,
): ChosenImage {
  const same = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();
  const found = MARKETPLACE.find(
    (i) => same(i.publisher, asked.publisher) && same(i.offer, asked.offer) && same(i.sku, asked.sku),
  );
  const exact = asked.version.toLowerCase() === "latest" ? found?.versions.at(-1) : asked.version;
  if (found === undefined || exact === undefined || !found.versions.includes(exact)) {
    const text = `Publisher: ${asked.publisher}, Offer: ${asked.offer}, Sku: ${asked.sku}, Version: ${asked.version}`;
    const message = `The platform image '${text.replaceAll(/\w+: /g, "").replaceAll(", ", ":")}' is not available. Verify that all fields in the storage profile are correct. For more details about storage profile information, please refer to https://aka.ms/storageprofile`;
    throw new ArmError(404, "PlatformImageNotFound", message, { target: "imageReference" });
  }
  void location;
  return { facts: found.facts, shown: { ...asked, exactVersion: exact } };
}

function fromId(cloud: Subscription, id: string, location: string): ChosenImage {
  const parsed = parseResourceId(id);
  const type = parsed === undefined ? "" : `${parsed.namespace}/${parsed.type}`.toLowerCase();
  if (type === "microsoft.compute/images") {
    const image = cloud.find("Microsoft.Compute/images", id);
    if (image === undefined || image.state !== "Succeeded") throw imageNotFound(id, location);
    if (image.location !== location) throw elsewhere(id, image.location, location);
    return { facts: image.facts, shown: { id } };
  }
  if (type === "microsoft.compute/galleries/images") {
    const image = cloud.find("Microsoft.Compute/galleries/images", id);
    const versions =
      image === undefined
        ? []
        : versionsOf(cloud, image).filter((v) => !v.excludeFromLatest && v.state === "Succeeded");
    const latest = versions.sort((a, b) => compareVersions(a.name, b.name)).at(-1);
    if (image === undefined || latest === undefined) throw imageNotFound(id, location);
    return fromVersion(image, latest, { location, shown: { id } });
  }
  if (type === "microsoft.compute/galleries/images/versions") {
    const version = cloud.find("Microsoft.Compute/galleries/images/versions", id);
    const image = cloud.find(
      "Microsoft.Compute/galleries/images",
      id.slice(0, id.toLowerCase().lastIndexOf("/versions/")),
    );
    if (image === undefined || version === undefined) throw imageNotFound(id, location);
    return fromVersion(image, version, { location, shown: { id } });
  }
  throw invalidParameter("imageReference.id", `The value of parameter imageReference.id is invalid.`);
}

function fromVersion(
  image: GalleryImage,
  version: GalleryVersion,
  where: { readonly location: string; readonly shown: Readonly<Record<string, Json>> },
): ChosenImage {
  if (!version.regions.includes(where.location)) {
    const message = `The gallery image ${version.id} is not available in ${where.location} region. Please contact image owner to replicate to this region, or change your requested region.`;
    throw new ArmError(404, "GalleryImageNotFound", message, { target: "imageReference" });
  }
  if (version.state !== "Succeeded") {
    throw new ArmError(409, "ImageNotReady", `The gallery image version ${version.id} is ${version.state}.`);
  }
  const { content, sizeGiB, name } = version;
  return { facts: { ...image.facts, content, sizeGiB }, shown: { ...where.shown, exactVersion: name } };
}

function fromCommunity(cloud: Subscription, id: string, location: string): ChosenImage {
  const found = /^\/CommunityGalleries\/([^/]+)\/Images\/([^/]+)(?:\/Versions\/([^/]+))?$/i.exec(id);
  if (found === null) {
    throw invalidParameter(
      "imageReference.communityGalleryImageId",
      "The value of parameter imageReference.communityGalleryImageId is invalid.",
    );
  }
  const [, gallery = "", image = "", version = "latest"] = found;
  const same = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();
  const known = COMMUNITY.find((c) => same(c.gallery, gallery) && same(c.image, image) && c.location === location);
  const exact = same(version, "latest") ? known?.versions.at(-1) : version;
  if (known === undefined || exact === undefined || !known.versions.includes(exact)) throw imageNotFound(id, location);
  void cloud;
  return { facts: known.facts, shown: { communityGalleryImageId: id, exactVersion: exact } };
}

export function versionsOf(cloud: Subscription, image: GalleryImage): GalleryVersion[] {
  const prefix = `${image.id}/versions/`.toLowerCase();
  return cloud.all("Microsoft.Compute/galleries/images/versions").filter((v) => v.id.toLowerCase().startsWith(prefix));
}

export function compareVersions(a: string, b: string): number {
  const [x, y] = [a.split(".").map(Number), b.split(".").map(Number)];
  return (x[0] ?? 0) - (y[0] ?? 0) || (x[1] ?? 0) - (y[1] ?? 0) || (x[2] ?? 0) - (y[2] ?? 0);
}

function imageNotFound(id: string, location: string): ArmError {
  if (/\/galleries\//i.test(id)) {
    const message = `The gallery image ${id} is not available in ${location} region. Please contact image owner to replicate to this region, or change your requested region.`;
    return new ArmError(404, "GalleryImageNotFound", message, { target: "imageReference" });
  }
  return new ArmError(404, "ImageNotFound", `The Image '${id}' cannot be found in '${location}' region.`, {
    target: "imageReference",
  });
}

function elsewhere(id: string, imageLocation: string, location: string): ArmError {
  return badRequest(
    `The image ${lastName(id)} is in ${imageLocation}, the VM in ${location}. They must be in the same region.`,
  );
}
