import type { GalleryImage } from "@azure/arm-compute";
import type { Call } from "../../src/base/call.ts";
import type { Fault } from "../../src/base/fault.ts";
import type { ArmApi } from "./arm-api.ts";
import type { AzureConfig } from "./config.ts";
import { byVersion, type ImageName } from "./image-name.ts";
import { type PodVmImage, securityOf, unusable } from "./pod-vm-image.ts";

interface FindDeps {
  readonly api: ArmApi;
  readonly config: AzureConfig;
}
type Named<K extends ImageName["kind"]> = Extract<ImageName, { kind: K }>;

/** Asks Azure what an image is, and which version of it is the newest. @throws Fault failed_precondition */
export function findImage(parsed: ImageName, name: string, deps: FindDeps, call: Call): Promise<PodVmImage> {
  switch (parsed.kind) {
    case "gallery":
      return inGallery(parsed, name, deps, call);
    case "community":
      return inCommunityGallery(parsed, name, deps, call);
    case "managed":
      return managedImage(parsed, name, deps, call);
    case "marketplace":
      return inMarketplace(parsed, name, deps, call);
  }
}

async function inGallery(image: Named<"gallery">, name: string, deps: FindDeps, call: Call): Promise<PodVmImage> {
  const { api, config } = deps;
  if (image.subscription.toLowerCase() !== config.subscriptionId.toLowerCase()) {
    // Its own subscription would have to be asked: what is known here is what the VM needs.
    throw unusable(`image ${name} is in another subscription: share its gallery, or publish it in this one`);
  }
  const [definition, versions] = await Promise.all([
    api.getGalleryImage(image.group, image.gallery, image.image, call),
    api.listGalleryVersions(image.group, image.gallery, image.image, call).catch(emptyWhenMissing),
  ]);
  if (definition === undefined) throw missing(name);
  const here = versions.filter((v) => v.provisioningState === "Succeeded" && isIn(v, config.location));
  const chosen =
    image.version === undefined
      ? newestOf(here.filter((v) => v.publishingProfile?.excludeFromLatest !== true))
      : here.find((v) => v.name === image.version);
  if (chosen?.id === undefined) throw noVersion(name, image.version, config, versions.length);
  const luns = chosen.storageProfile?.dataDiskImages?.map((d) => d.lun) ?? [];
  return {
    ...{ name, reference: { id: chosen.id }, diskGiB: chosen.storageProfile?.osDiskImage?.sizeInGB ?? 0 },
    ...describe(definition),
    dataLuns: luns,
  };
}

function isIn(
  version: { location?: string; publishingProfile?: { targetRegions?: readonly { name: string }[] } },
  location: string,
): boolean {
  const regions = version.publishingProfile?.targetRegions?.map((r) => r.name) ?? [];
  return [version.location ?? "", ...regions].some((r) => r.replaceAll(" ", "").toLowerCase() === location);
}

async function inCommunityGallery(
  image: Named<"community">,
  name: string,
  { api, config }: FindDeps,
  call: Call,
): Promise<PodVmImage> {
  const [definition, versions] = await Promise.all([
    api.getCommunityImage(image.gallery, image.image, call),
    api.listCommunityVersions(image.gallery, image.image, call).catch(emptyWhenMissing),
  ]);
  if (definition === undefined) throw missing(name);
  const chosen =
    image.version === undefined
      ? newestOf(versions.filter((v) => v.excludeFromLatest !== true))
      : versions.find((v) => v.name === image.version);
  if (chosen?.name === undefined) throw noVersion(name, image.version, config, versions.length);
  const id = `/CommunityGalleries/${image.gallery}/Images/${image.image}/Versions/${chosen.name}`;
  return {
    ...{ name, reference: { communityGalleryImageId: id }, dataLuns: [] },
    diskGiB: chosen.storageProfile?.osDiskImage?.diskSizeGB ?? 0,
    ...describe(definition),
  };
}

async function managedImage(
  { group, image }: Named<"managed">,
  name: string,
  { api }: FindDeps,
  call: Call,
): Promise<PodVmImage> {
  const found = await api.getManagedImage(group, image, call);
  if (found === undefined) throw missing(name);
  // It has no security type: trusted launch and confidential VMs need a gallery.
  const shape = { arch: "x64", security: securityOf(undefined), plan: undefined } as const;
  const disk = found.storageProfile?.osDisk;
  return {
    ...{ name, reference: { id: found.id ?? name }, ...shape, diskGiB: disk?.diskSizeGB ?? 0 },
    specialised: disk?.osState === "Specialized",
    gen2: found.hyperVGeneration === "V2",
    dataLuns: found.storageProfile?.dataDisks?.map((d) => d.lun) ?? [],
  };
}

async function inMarketplace(
  image: Named<"marketplace">,
  name: string,
  { api, config }: FindDeps,
  call: Call,
): Promise<PodVmImage> {
  const { publisher, offer, sku } = image;
  const versions = image.version === undefined ? await api.listMarketplaceVersions(publisher, offer, sku, call) : [];
  const version = image.version ?? versions.toSorted(byVersion)[0];
  if (version === undefined) throw noVersion(name, undefined, config, 0);
  const found = await api.getMarketplaceImage(publisher, offer, sku, version, call);
  if (found === undefined) throw missing(name);
  return {
    ...{ name, reference: { publisher, offer, sku, version }, plan: found.plan, specialised: false, diskGiB: 0 },
    gen2: found.hyperVGeneration === "V2",
    arch: found.architecture === "Arm64" ? "arm64" : "x64",
    security: securityOf(found.features),
    dataLuns: found.dataDiskImages?.flatMap((d) => d.lun ?? []) ?? [],
  };
}

type Definition = Pick<GalleryImage, "osState" | "hyperVGeneration" | "architecture" | "features" | "purchasePlan">;

function describe({ osState, hyperVGeneration, architecture, features, purchasePlan }: Definition) {
  return {
    specialised: osState === "Specialized",
    gen2: hyperVGeneration === "V2",
    arch: architecture === "Arm64" ? ("arm64" as const) : ("x64" as const),
    security: securityOf(features),
    plan: purchasePlan,
  };
}

function newestOf<V extends { readonly name?: string }>(versions: readonly V[]): V | undefined {
  return versions.toSorted((a, b) => byVersion(a.name ?? "", b.name ?? ""))[0];
}

function emptyWhenMissing(e: Fault): readonly never[] {
  if (e.context?.status === 404) return [];
  throw e;
}

function missing(name: string): Fault {
  return unusable(`image ${name} is not there or not shared with this subscription: correct providers.azure.image`);
}

function noVersion(name: string, version: string | undefined, { location }: AzureConfig, of: number): Fault {
  const what = version === undefined ? "no version that can be used" : `no version ${version}`;
  return unusable(`image ${name} has ${what} in ${location} (${of} in all): publish one, or replicate it there`);
}
