import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { InstanceSpec } from "../../src/provider/index.ts";
import { AzureWorld, installAzureSdk, SEEDED } from "../../test/clouds/arm/index.ts";
import { makeUnusedSshKey } from "./ssh-key.ts";
import { deleteUntilGone, settledInstance } from "./test-support.ts";

const sdk = await installAzureSdk();

const PUBLIC_KEY = await makeUnusedSshKey();

interface Case {
  readonly config: Readonly<Record<string, unknown>>;
  readonly spec?: Partial<InstanceSpec>;
  readonly prepare?: (world: AzureWorld) => void;
  /** Parts of the VM's body that the option makes, by path; undefined = the body must not have it. */
  readonly sends: Readonly<Record<string, unknown>>;
  /** What the endpoint answers to it when it has passed the published model: the endpoint has no such thing. */
  readonly refusal?: string;
}

const NIC = "properties.networkProfile.networkInterfaceConfigurations";
const IP = `${NIC}.0.properties.ipConfigurations.0.properties`;
const OS_DISK = "properties.storageProfile.osDisk";
const DISK = `${OS_DISK}.managedDisk`;
const IMAGE = "properties.storageProfile.imageReference";
const UEFI = "properties.securityProfile.uefiSettings";
const PLAIN = { tee: "none", trustedLaunch: false, size: "Standard_D2s_v5", sizes: ["Standard_D*s_v5"] };
const GENERALIZED = SEEDED.image("generalized");
const GROUP = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/pods/providers";
const ENCRYPTION_SET = `${GROUP}/Microsoft.Compute/diskEncryptionSets/keys`;
const IDENTITY = `${GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/pods`;
const COMMUNITY = "/CommunityGalleries/cocopodvm-d0e4f35f-5530-4b9c-8596-112487cdea85/Images/podvm_image0";
const NONE = "NotImplementedByTestEndpoint";

/** One line for each line of the option table in README.md. */
const CASES: Readonly<Record<string, Case>> = {
  location: { config: {}, sends: { location: "westeurope" } },
  subnets: {
    config: { subnets: [SEEDED.externalSubnet] },
    sends: {
      [`${IP}.subnet.id`]: SEEDED.externalSubnet,
      [`${IP}.primary`]: true,
      [`${NIC}.0.properties.primary`]: true,
    },
  },
  securityGroup: {
    config: {},
    sends: { [`${NIC}.0.properties.networkSecurityGroup.id`]: SEEDED.securityGroup },
  },
  "securityGroup, not given": {
    config: { securityGroup: undefined },
    sends: { [`${NIC}.0.properties.networkSecurityGroup`]: undefined },
  },
  extraSubnets: {
    config: { extraSubnets: [SEEDED.externalSubnet] },
    sends: {
      [`${NIC}.1.properties.ipConfigurations.0.properties.subnet.id`]: SEEDED.externalSubnet,
      ...{ [`${NIC}.1.properties.primary`]: false, [`${NIC}.1.properties.deleteOption`]: "Delete" },
    },
  },
  acceleratedNetworking: {
    config: { acceleratedNetworking: true },
    sends: { [`${NIC}.0.properties.enableAcceleratedNetworking`]: true },
  },
  publicIp: { config: {}, sends: { [`${IP}.publicIPAddressConfiguration`]: undefined } },
  "publicIp, on": {
    config: { publicIp: true },
    sends: {
      [`${IP}.publicIPAddressConfiguration.properties.deleteOption`]: "Delete",
      [`${IP}.publicIPAddressConfiguration.properties.publicIPAllocationMethod`]: "Static",
      [`${IP}.publicIPAddressConfiguration.sku.name`]: "Standard",
      [`${IP}.publicIPAddressConfiguration.tags.kata-remote:owner`]: "kata-remote",
    },
  },
  image: {
    config: {},
    sends: { [`${IMAGE}.id`]: SEEDED.image("kata-remote", "1.10.0"), "properties.osProfile": undefined },
  },
  "image, a version": {
    config: { image: SEEDED.image("kata-remote", "1.2.0") },
    sends: { [`${IMAGE}.id`]: SEEDED.image("kata-remote", "1.2.0") },
  },
  images: {
    config: { images: [GENERALIZED] },
    spec: { image: GENERALIZED },
    sends: { [`${IMAGE}.id`]: `${GENERALIZED}/versions/1.0.0` },
  },
  "image, of a community gallery": {
    config: { image: COMMUNITY },
    sends: { [`${IMAGE}.communityGalleryImageId`]: `${COMMUNITY}/Versions/2026.02.20`, [`${IMAGE}.id`]: undefined },
  },
  "image, of the marketplace": {
    config: { image: "podvm-publisher:podvm:cvm:1.0.0" },
    sends: {
      [IMAGE]: { publisher: "podvm-publisher", offer: "podvm", sku: "cvm", version: "1.0.0" },
      plan: { publisher: "podvm-publisher", product: "podvm", name: "cvm" },
    },
  },
  size: {
    config: { size: "Standard_EC2as_v5", sizes: [] },
    spec: { vcpus: 0, memoryMiB: 0 },
    sends: { "properties.hardwareProfile.vmSize": "Standard_EC2as_v5" },
  },
  sizes: {
    config: { sizes: ["Standard_DC*as_v5"] },
    spec: { vcpus: 3 },
    sends: { "properties.hardwareProfile.vmSize": "Standard_DC4as_v5" },
  },
  arch: {
    config: {
      ...PLAIN,
      arch: "arm64",
      image: SEEDED.image("arm"),
      size: "Standard_D2ps_v5",
      sizes: ["Standard_D*ps_v5"],
    },
    sends: { "properties.hardwareProfile.vmSize": "Standard_D2ps_v5" },
  },
  tee: {
    config: {},
    sends: { "properties.securityProfile.securityType": "ConfidentialVM", [`${UEFI}.vTpmEnabled`]: true },
  },
  "tee, tdx": {
    config: { tee: "tdx", size: "Standard_DC2es_v5", sizes: ["Standard_DC*"], zones: ["1"] },
    sends: {
      "properties.hardwareProfile.vmSize": "Standard_DC2es_v5",
      "properties.securityProfile.securityType": "ConfidentialVM",
    },
  },
  "tee, none": {
    config: { ...PLAIN, image: SEEDED.image("plain") },
    sends: { "properties.securityProfile": undefined, [`${DISK}.securityProfile`]: undefined },
  },
  trustedLaunch: {
    config: { ...PLAIN, trustedLaunch: true, image: SEEDED.image("plain") },
    prepare: ({ endpoint }) => {
      const image = endpoint.cloud.need("Microsoft.Compute/galleries/images", SEEDED.image("plain"));
      const value = "TrustedLaunchSupported";
      const properties = { ...image.properties, features: [{ name: "SecurityType", value }] };
      Object.assign(image, { facts: { ...image.facts, securityType: value }, properties });
    },
    sends: {
      ...{ "properties.securityProfile.securityType": "TrustedLaunch", [`${UEFI}.vTpmEnabled`]: true },
      [`${DISK}.securityProfile`]: undefined,
    },
  },
  secureBoot: { config: { secureBoot: true }, sends: { [`${UEFI}.secureBootEnabled`]: true } },
  "secureBoot, off": { config: {}, sends: { [`${UEFI}.secureBootEnabled`]: false } },
  zones: { config: { zones: ["2"] }, sends: { zones: ["2"] } },
  "zones, none": { config: { zones: [] }, sends: { zones: undefined } },
  market: {
    config: { market: "spot" },
    sends: {
      "properties.priority": "Spot",
      "properties.evictionPolicy": "Delete",
      "properties.billingProfile.maxPrice": -1,
    },
  },
  "market, regular": {
    config: {},
    sends: { "properties.priority": undefined, "properties.billingProfile": undefined },
  },
  spotMaxPrice: {
    config: { market: "spot-then-regular", spotMaxPrice: 0.05 },
    sends: { "properties.billingProfile.maxPrice": 0.05 },
  },
  proximityGroup: {
    config: { proximityGroup: `${GROUP}/Microsoft.Compute/proximityPlacementGroups/near`, zones: ["1"] },
    sends: { "properties.proximityPlacementGroup.id": `${GROUP}/Microsoft.Compute/proximityPlacementGroups/near` },
    refusal: NONE,
  },
  hostGroup: {
    config: { hostGroup: `${GROUP}/Microsoft.Compute/hostGroups/hosts` },
    sends: { "properties.hostGroup.id": `${GROUP}/Microsoft.Compute/hostGroups/hosts` },
    refusal: NONE,
  },
  capacityReservationGroup: {
    config: { capacityReservationGroup: `${GROUP}/Microsoft.Compute/capacityReservationGroups/kept` },
    sends: {
      "properties.capacityReservation.capacityReservationGroup.id": `${GROUP}/Microsoft.Compute/capacityReservationGroups/kept`,
    },
    refusal: NONE,
  },
  identity: {
    config: { identity: IDENTITY },
    sends: { "identity.type": "UserAssigned", "identity.userAssignedIdentities": { [IDENTITY]: {} } },
  },
  "sshPublicKey, not given": {
    config: { image: GENERALIZED },
    sends: {
      ...{ "properties.osProfile.adminUsername": "peerpod", "properties.osProfile.adminPassword": undefined },
      "properties.osProfile.linuxConfiguration.disablePasswordAuthentication": true,
      ...{ "properties.osProfile.customData": undefined, "properties.osProfile.allowExtensionOperations": false },
    },
  },
  "sshPublicKey, sshUser": {
    config: { image: GENERALIZED, sshUser: "core", sshPublicKey: PUBLIC_KEY },
    sends: {
      "properties.osProfile.linuxConfiguration.ssh.publicKeys.0.keyData": PUBLIC_KEY,
      "properties.osProfile.linuxConfiguration.ssh.publicKeys.0.path": "/home/core/.ssh/authorized_keys",
    },
  },
  bootDiagnostics: { config: {}, sends: { "properties.diagnosticsProfile.bootDiagnostics": { enabled: true } } },
  tags: {
    config: { tags: { team: "blue" } },
    sends: { "tags.team": "blue", [`${NIC}.0.tags.team`]: "blue", "tags.kata-remote:cluster": "c1" },
  },
  rootDiskGiB: { config: { rootDiskGiB: 40 }, sends: { [`${OS_DISK}.diskSizeGB`]: 40 } },
  "rootDiskGiB, below the image's": { config: { rootDiskGiB: 1 }, sends: { [`${OS_DISK}.diskSizeGB`]: 4 } },
  "rootDiskGiB, of a pod": {
    config: { rootDiskGiB: 40 },
    spec: { rootDiskGiB: 50 },
    sends: { [`${OS_DISK}.diskSizeGB`]: 50 },
  },
  "rootDiskGiB, not given": {
    config: {},
    sends: { [`${OS_DISK}.diskSizeGB`]: undefined, [`${OS_DISK}.deleteOption`]: "Delete" },
  },
  rootDiskType: { config: { rootDiskType: "Premium_LRS" }, sends: { [`${DISK}.storageAccountType`]: "Premium_LRS" } },
  encryption: { config: {}, sends: { [`${DISK}.securityProfile.securityEncryptionType`]: "VMGuestStateOnly" } },
  "encryption, disk": {
    config: { encryption: "disk", secureBoot: true },
    sends: { [`${DISK}.securityProfile.securityEncryptionType`]: "DiskWithVMGuestState" },
  },
  "encryption, none": {
    config: { encryption: "none" },
    sends: { [`${DISK}.securityProfile.securityEncryptionType`]: "NonPersistedTPM" },
  },
  diskEncryptionSet: {
    config: { diskEncryptionSet: ENCRYPTION_SET },
    sends: {
      [`${DISK}.diskEncryptionSet.id`]: ENCRYPTION_SET,
      [`${DISK}.securityProfile.diskEncryptionSet`]: undefined,
    },
    refusal: "ResourceNotFound",
  },
  "diskEncryptionSet, with encryption disk": {
    config: { diskEncryptionSet: ENCRYPTION_SET, encryption: "disk", secureBoot: true },
    sends: {
      [`${DISK}.securityProfile.diskEncryptionSet.id`]: ENCRYPTION_SET,
      [`${DISK}.diskEncryptionSet`]: undefined,
    },
    refusal: "ResourceNotFound",
  },
  encryptionAtHost: {
    config: { encryptionAtHost: true },
    sends: { "properties.securityProfile.encryptionAtHost": true },
  },
  dataDisksGiB: {
    config: { dataDisksGiB: [10, 20] },
    sends: {
      ...{ "properties.storageProfile.dataDisks.1.lun": 1, "properties.storageProfile.dataDisks.1.diskSizeGB": 20 },
      ...{
        "properties.storageProfile.dataDisks.0.createOption": "Empty",
        "properties.storageProfile.dataDisks.0.deleteOption": "Delete",
      },
    },
  },
  dataDiskType: {
    config: { dataDisksGiB: [10], dataDiskType: "Premium_LRS" },
    sends: { "properties.storageProfile.dataDisks.0.managedDisk.storageAccountType": "Premium_LRS" },
  },
};

describe("requests, held against azure-mgmt-compute's and -network's models", {
  skip: "missing" in sdk ? sdk.missing : false,
}, () => {
  for (const [name, { config, spec, prepare, sends, refusal }] of Object.entries(CASES)) {
    it(`are right with the option ${name}`, async () => {
      if ("missing" in sdk) return;
      await using world = await AzureWorld.open(sdk.model);
      prepare?.(world);
      const provider = await world.provider(refusal === undefined ? config : { ...config, attempts: 1 });
      const making = provider.createInstance(world.spec(spec ?? {}), background());
      if (refusal !== undefined) await assert.rejects(making);
      const id = refusal === undefined ? (await making).id : undefined;
      const put = world.endpoint.requests.find((r) => r.action === "VirtualMachines_CreateOrUpdate");
      assert.equal(put?.outcome, refusal);
      for (const [path, value] of Object.entries(sends)) assert.deepEqual(at(put?.body, path), value, path);
      assert.equal(JSON.stringify(put?.body).includes("Detach"), false);
      if (id !== undefined) {
        await settledInstance(provider, id);
        await provider.listInstances("c1", background());
        await provider.consoleOutput(id, 1000, background());
        await deleteUntilGone(provider, id);
      }
      await provider.verify(background());
      assert.deepEqual(world.endpoint.replyProblems, []);
      const refused = world.endpoint.requests.filter((r) => r.outcome !== undefined && r !== put);
      // The VM is looked up until it is gone.
      assert.deepEqual(
        refused.filter((r) => r.action !== "VirtualMachines_Get").map((r) => `${r.action} ${r.outcome}`),
        [],
      );
      assert.deepEqual(world.endpoint.cloud.leftovers(), []);
    });
  }
});

function at(body: unknown, path: string): unknown {
  let value = body;
  let rest = path;
  while (rest !== "") {
    if (typeof value !== "object" || value === null) return undefined;
    const here: object = value;
    // Keys may hold dots.
    const key = Object.keys(here).find((k) => rest === k || rest.startsWith(`${k}.`));
    if (key === undefined) return undefined;
    value = (here as Record<string, unknown>)[key];
    rest = rest.slice(key.length + 1);
  }
  return value;
}
