import { Fault } from "../../src/base/fault.ts";
import type { AzureConfig } from "./config.ts";
import { parseImageName } from "./image-name.ts";
import { NAME_TAG, OWN_TAG_PREFIX } from "./tags.ts";

/** Azure allows 50 on a resource; seven are the provider's. Source: Azure Resource Manager, "Use tags", limitations. */
const MAX_TAGS = 43;

/** What a schema cannot say. @throws Fault invalid_argument naming the keys */
export function checkConfig(config: AzureConfig): void {
  const wrong = [
    ...machineProblems(config),
    ...securityProblems(config),
    ...placementProblems(config),
    ...tagProblems(config),
  ].filter((problem) => typeof problem === "string");
  if (wrong.length === 0) return;
  throw new Fault("invalid_argument", `providers.azure: ${wrong.join("; ")}`, { provider: "azure" });
}

function machineProblems(config: AzureConfig): (string | false)[] {
  const { arch, tee, market, spotMaxPrice, image, images } = config;
  const unreadable = [image, ...images].filter((name) => parseImageName(name) === undefined);
  return [
    tee !== "none" && arch === "arm64" && `tee "${tee}" needs arch "x64"`,
    market === "regular" && spotMaxPrice !== undefined && 'spotMaxPrice needs market "spot"',
    unreadable.length > 0 && `image ${unreadable.map((i) => `"${i}"`).join(", ")} is no image's name`,
  ];
}

/** Source: Azure's refusals of these combinations ("Confidential VM FAQ"; REST reference, SecurityProfile). */
function securityProblems(config: AzureConfig): (string | false)[] {
  const { tee, vTpm, secureBoot, encryption, trustedLaunch, encryptionAtHost, rootDiskType } = config;
  const confidential = tee !== "none";
  return [
    confidential && !vTpm && `vTpm = false needs tee "none": a confidential VM has one`,
    !confidential && encryption === "disk" && 'encryption "disk" needs a tee',
    !confidential && !trustedLaunch && secureBoot && 'secureBoot needs a tee, or trustedLaunch with tee "none"',
    confidential && encryption === "disk" && !secureBoot && 'encryption "disk" needs secureBoot',
    confidential &&
      encryption === "disk" &&
      encryptionAtHost &&
      'encryption "disk" and encryptionAtHost exclude each other',
    confidential && rootDiskType.endsWith("ZRS") && `rootDiskType "${rootDiskType}" cannot be of a confidential VM`,
  ];
}

function placementProblems(config: AzureConfig): (string | false)[] {
  const { hostGroup, market, capacityReservationGroup, proximityGroup, zones } = config;
  const spot = market !== "regular";
  return [
    spot && hostGroup !== undefined && 'hostGroup needs market "regular"',
    spot && capacityReservationGroup !== undefined && 'capacityReservationGroup needs market "regular"',
    hostGroup !== undefined &&
      capacityReservationGroup !== undefined &&
      "hostGroup and capacityReservationGroup exclude each other",
    proximityGroup !== undefined && zones.length > 1 && "proximityGroup is in one zone: name at most one in zones",
    new Set(zones).size !== zones.length && "zones names one twice",
  ];
}

function tagProblems({ tags }: AzureConfig): (string | false)[] {
  const keys = Object.keys(tags);
  // Tag names are compared without regard to case.
  const reserved = keys.filter((key) => {
    const lower = key.toLowerCase();
    return (
      lower === NAME_TAG.toLowerCase() || lower.startsWith(OWN_TAG_PREFIX) || /^(azure|microsoft|windows)/.test(lower)
    );
  });
  const malformed = keys.filter((key) => /[<>%&\\?/]/.test(key));
  return [
    keys.length > MAX_TAGS && `tags has ${keys.length} keys, at most ${MAX_TAGS} are possible`,
    reserved.length > 0 && `tags cannot set ${reserved.join(", ")}`,
    malformed.length > 0 && `tags has ${malformed.join(", ")}: none of < > % & \\ ? / can be in a name`,
  ];
}
