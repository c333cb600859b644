import { partOf } from "./names.ts";

/** Where an image is, read from what the configuration or a pod calls it. */
export type ImageName =
  | {
      readonly kind: "gallery";
      readonly subscription: string;
      readonly group: string;
      readonly gallery: string;
      readonly image: string;
      /** undefined = the newest */
      readonly version: string | undefined;
    }
  | {
      readonly kind: "community";
      readonly gallery: string;
      readonly image: string;
      readonly version: string | undefined;
    }
  | { readonly kind: "managed"; readonly group: string; readonly image: string }
  | {
      readonly kind: "marketplace";
      readonly publisher: string;
      readonly offer: string;
      readonly sku: string;
      readonly version: string | undefined;
    };

const COMPUTE = "^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\\.Compute";
const GALLERY = new RegExp(`${COMPUTE}/galleries/[^/]+/images/[^/]+(/versions/[^/]+)?$`, "i");
const MANAGED = new RegExp(`${COMPUTE}/images/[^/]+$`, "i");
const COMMUNITY = /^\/CommunityGalleries\/[^/]+\/Images\/[^/]+(\/Versions\/[^/]+)?$/i;
const URN = /^[^:/]+:[^:/]+:[^:/]+:[^:/]+$/;

/** @returns undefined for what cannot be an image's name */
export function parseImageName(text: string): ImageName | undefined {
  const version = newest(partOf(text, "versions"));
  if (GALLERY.test(text)) {
    const place = { subscription: partOf(text, "subscriptions"), group: partOf(text, "resourceGroups") };
    return { kind: "gallery", ...place, gallery: partOf(text, "galleries"), image: partOf(text, "images"), version };
  }
  if (COMMUNITY.test(text)) {
    return { kind: "community", gallery: partOf(text, "CommunityGalleries"), image: partOf(text, "Images"), version };
  }
  if (MANAGED.test(text))
    return { kind: "managed", group: partOf(text, "resourceGroups"), image: partOf(text, "images") };
  if (!URN.test(text)) return undefined;
  const [publisher = "", offer = "", sku = "", last = ""] = text.split(":");
  return { kind: "marketplace", publisher, offer, sku, version: newest(last) };
}

function newest(version: string): string | undefined {
  return version === "" || version.toLowerCase() === "latest" ? undefined : version;
}

/** Newer versions first: 1.10.0 before 1.9.0. */
export function byVersion(a: string, b: string): number {
  const [left, right] = [a, b].map((v) => v.split(".").map(Number));
  for (let i = 0; i < Math.max(left?.length ?? 0, right?.length ?? 0); i++) {
    const difference = (right?.[i] ?? 0) - (left?.[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
