import { newCommon } from "./lifecycle.ts";
import type { GalleryImage, GalleryVersion, ImageFacts, Resource } from "./resources.ts";
import type { Subscription } from "./subscription.ts";

/** Group of everything that tests find in a new account. */
export const GROUP = "pods";

/** The account as tests find it: networks, security groups and images, no VM. */
export function seed(cloud: Subscription): void {
  cloud.groups.set(GROUP, { name: GROUP, location: "westeurope", seeded: true });
  const network = (name: string, location: string, prefix: string, subnets: Readonly<Record<string, string>>): void => {
    const id = `${cloud.groupId(GROUP)}/providers/Microsoft.Network/virtualNetworks/${name}`;
    put({
      ...base(id, location),
      ...{ type: "Microsoft.Network/virtualNetworks", prefixes: [prefix] },
      subnets: Object.entries(subnets).map(([subnet, cidr]) => ({
        id: `${id}/subnets/${subnet}`,
        name: subnet,
        prefix: cidr,
        properties: {},
      })),
    });
  };
  const base = (id: string, location: string) => ({
    ...newCommon(cloud, id, { location }),
    ...{ state: "Succeeded" as const, seeded: true, hiddenLists: 0, hiddenReads: 0 },
  });
  const put = (resource: Resource): void => cloud.put(resource);
  const { addressPrefix } = cloud;
  network("pods-vnet", "westeurope", `${addressPrefix}.0.0/16`, {
    podvms: `${addressPrefix}.0.0/24`,
    external: `${addressPrefix}.1.0/24`,
    small: `${addressPrefix}.9.0/29`,
  });
  network("pods-vnet-north", "northeurope", "10.1.0.0/16", { podvms: "10.1.0.0/24" });
  const securityGroup = (name: string, port: string, source: string): void =>
    put({
      ...base(`${cloud.groupId(GROUP)}/providers/Microsoft.Network/networkSecurityGroups/${name}`, "westeurope"),
      type: "Microsoft.Network/networkSecurityGroups",
      rules: [
        {
          name: "in",
          properties: {
            ...{ protocol: "Tcp", access: "Allow", direction: "Inbound", priority: 100, sourcePortRange: "*" },
            ...{ destinationPortRange: port, sourceAddressPrefix: source, destinationAddressPrefix: "*" },
          },
        },
        {
          name: "deny",
          properties: {
            ...{ protocol: "*", access: "Deny", direction: "Inbound", priority: 4000, sourcePortRange: "*" },
            ...{ destinationPortRange: "*", sourceAddressPrefix: "*", destinationAddressPrefix: "*" },
          },
        },
      ],
    });
  securityGroup("podvm", "15150", "VirtualNetwork");
  securityGroup("closed", "22", "10.0.0.0/16");
  seedImages(cloud, base);
}

function seedImages(
  cloud: Subscription,
  base: (id: string, location: string) => Omit<ReturnType<typeof newCommon>, "state"> & { state: "Succeeded" },
): void {
  const gallery = `${cloud.groupId(GROUP)}/providers/Microsoft.Compute/galleries/podvm`;
  const properties = { identifier: { uniqueName: `${cloud.id}-PODVM` } };
  cloud.put({ ...base(gallery, "westeurope"), type: "Microsoft.Compute/galleries", properties });
  const image = (name: string, facts: Omit<ImageFacts, "content" | "sizeGiB">, versions: readonly string[]): void => {
    const id = `${gallery}/images/${name}`;
    const { osType, osState, generation, arch, securityType } = facts;
    const definition: GalleryImage = {
      ...{ ...base(id, "westeurope"), type: "Microsoft.Compute/galleries/images", facts },
      properties: {
        ...{ osType, osState, hyperVGeneration: generation, architecture: arch },
        identifier: { publisher: "kata-remote", offer: "podvm", sku: name },
        ...(securityType && { features: [{ name: "SecurityType", value: securityType }] }),
      },
    };
    cloud.put(definition);
    for (const version of versions) {
      const made: GalleryVersion = {
        ...{ ...base(`${id}/versions/${version}`, "westeurope"), type: "Microsoft.Compute/galleries/images/versions" },
        ...{ regions: ["westeurope"], content: undefined, sizeGiB: 4, excludeFromLatest: version.endsWith(".99") },
        properties: {
          publishingProfile: { excludeFromLatest: version.endsWith(".99"), publishedDate: "2026-01-01T00:00:00Z" },
          storageProfile: { osDiskImage: { sizeInGB: 4 } },
        },
      };
      cloud.put(made);
    }
  };
  const own = { osType: "Linux", osState: "Specialized", generation: "V2", arch: "x64" } as const;
  image("kata-remote", { ...own, securityType: "ConfidentialVmSupported" }, ["1.0.0", "1.2.0", "1.10.0", "2.0.99"]);
  image("generalized", { ...own, osState: "Generalized", securityType: "ConfidentialVmSupported" }, ["1.0.0"]);
  image("plain", { ...own, securityType: undefined }, ["1.0.0"]);
  image("generation-1", { ...own, generation: "V1", securityType: undefined }, ["1.0.0"]);
  image("arm", { ...own, arch: "Arm64", securityType: undefined }, ["1.0.0"]);
  image("empty", { ...own, securityType: undefined }, []);
}
