import type { ImageFacts } from "../resources.ts";

const GENERALIZED = { osType: "Linux", osState: "Generalized", sizeGiB: 30, content: undefined } as const;

interface MarketplaceImage {
  readonly publisher: string;
  readonly offer: string;
  readonly sku: string;
  /** Oldest first. */
  readonly versions: readonly string[];
  readonly facts: ImageFacts;
}

/** A small part of the marketplace. Source: `az vm image list` output of Canonical's and others' offers. */
export const MARKETPLACE: readonly MarketplaceImage[] = [
  {
    ...{
      publisher: "Canonical",
      offer: "ubuntu-24_04-lts",
      sku: "server",
      versions: ["24.04.202601010", "24.04.202602020"],
    },
    facts: { ...GENERALIZED, generation: "V2", arch: "x64", securityType: "TrustedLaunchSupported" },
  },
  {
    ...{
      publisher: "Canonical",
      offer: "ubuntu-24_04-lts",
      sku: "cvm",
      versions: ["24.04.202601010", "24.04.202602020"],
    },
    facts: { ...GENERALIZED, generation: "V2", arch: "x64", securityType: "ConfidentialVmSupported" },
  },
  {
    ...{ publisher: "Canonical", offer: "ubuntu-24_04-lts", sku: "server-gen1", versions: ["24.04.202602020"] },
    facts: { ...GENERALIZED, generation: "V1", arch: "x64", securityType: undefined },
  },
  {
    ...{ publisher: "Canonical", offer: "ubuntu-24_04-lts", sku: "server-arm64", versions: ["24.04.202602020"] },
    facts: { ...GENERALIZED, generation: "V2", arch: "Arm64", securityType: undefined },
  },
  {
    ...{ publisher: "podvm-publisher", offer: "podvm", sku: "cvm", versions: ["1.0.0"] },
    facts: {
      ...{ ...GENERALIZED, generation: "V2", arch: "x64", securityType: "ConfidentialVmSupported" },
      plan: { publisher: "podvm-publisher", product: "podvm", name: "cvm" },
    },
  },
];

/** Galleries that others share with everybody. */
export const COMMUNITY: readonly {
  readonly gallery: string;
  readonly image: string;
  readonly location: string;
  readonly versions: readonly string[];
  readonly facts: ImageFacts;
}[] = [
  {
    ...{ gallery: "cocopodvm-d0e4f35f-5530-4b9c-8596-112487cdea85", image: "podvm_image0", location: "westeurope" },
    versions: ["2026.01.10", "2026.02.20"],
    facts: { ...GENERALIZED, generation: "V2", arch: "x64", securityType: "ConfidentialVmSupported" },
  },
];
