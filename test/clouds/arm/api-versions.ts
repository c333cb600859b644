import { ArmError } from "./arm-error.ts";

const COMPUTE =
  "2019-12-01 2020-06-01 2020-12-01 2021-03-01 2021-07-01 2021-11-01 2022-03-01 2022-08-01 2022-11-01 2023-03-01 2023-07-01 2023-09-01 2024-03-01 2024-07-01 2024-11-01 2025-04-01 2025-11-01 2026-03-01 2026-04-01";
const NETWORK =
  "2018-10-01 2020-11-01 2021-08-01 2022-07-01 2022-11-01 2023-04-01 2023-09-01 2023-11-01 2024-01-01 2024-03-01 2024-05-01 2024-07-01 2024-10-01 2025-01-01 2025-03-01 2025-05-01 2026-01-01 2026-03-01";
const DISKS = "2021-12-01 2022-03-02 2022-07-02 2023-01-02 2023-04-02 2023-10-02 2024-03-02 2025-01-02 2026-03-02";
const GALLERIES = "2021-07-01 2022-03-03 2022-08-03 2023-07-03 2024-03-03 2025-03-03 2025-12-03 2026-03-03";

/** Stable versions by what they are versions of; the longest name that fits wins. Source: azure-rest-api-specs, folder names. */
const KNOWN: readonly (readonly [string, string])[] = [
  ["Microsoft.Compute/disks", DISKS],
  ["Microsoft.Compute/galleries", GALLERIES],
  ["Microsoft.Compute/locations/communityGalleries", GALLERIES],
  ["Microsoft.Compute/locations/operations", `${COMPUTE} ${DISKS} ${GALLERIES}`],
  ["Microsoft.Compute/skus", "2017-09-01 2019-04-01 2021-07-01"],
  ["Microsoft.Compute", COMPUTE],
  ["Microsoft.Network", NETWORK],
  ["Microsoft.Authorization/permissions", "2015-07-01 2018-07-01 2022-04-01"],
  ["Microsoft.Resources", "2020-06-01 2021-04-01 2022-09-01 2024-03-01 2024-07-01 2024-11-01 2025-03-01 2025-04-01"],
];

/**
 * @param type `Microsoft.Compute/virtualMachines`
 * @throws ArmError for a version that is missing or unknown
 */
export function checkApiVersion(type: string, version: string | undefined): void {
  if (version === undefined || version === "") {
    const message = "The api-version query parameter (?api-version=) is required for all requests.";
    throw new ArmError(400, "MissingApiVersionParameter", message);
  }
  const [, versions = ""] = KNOWN.find(([name]) => type.toLowerCase().startsWith(name.toLowerCase())) ?? [];
  if (versions.split(" ").includes(version)) return;
  const supported = versions.replaceAll(" ", ", ");
  if (!/^\d{4}-\d{2}-\d{2}(-(alpha|beta|preview|rc|privatepreview))?$/.test(version)) {
    const message = `The api-version '${version}' is invalid. The supported versions are '${supported}'.`;
    throw new ArmError(400, "InvalidApiVersionParameter", message);
  }
  const message = `No registered resource provider found for API version '${version}' for type '${type.split("/").at(-1)}'. The supported api-versions are '${supported}'.`;
  throw new ArmError(400, "NoRegisteredProviderFound", message);
}
