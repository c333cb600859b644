import type { ImageReference, Plan } from "@azure/arm-compute";
import { Fault } from "../../src/base/fault.ts";
import type { AzureConfig } from "./config.ts";

/** What kinds of VM an image can be of. */
export interface ImageSecurity {
  /** As Azure calls it. */
  readonly type: string;
  readonly plain: boolean;
  readonly trustedLaunch: boolean;
  readonly confidential: boolean;
}

/** What a VM needs to know of its image. */
export interface PodVmImage {
  readonly name: string;
  readonly reference: ImageReference;
  /** Of an image that is sold in the marketplace. */
  readonly plan: Plan | undefined;
  /** It is a copy of a machine that has been set up: Azure sets nothing up in it, and takes no user or key for it. */
  readonly specialised: boolean;
  readonly gen2: boolean;
  readonly arch: "x64" | "arm64";
  readonly security: ImageSecurity;
  readonly diskGiB: number;
  /** LUNs of its data disks: each becomes a disk that has to go with the VM. */
  readonly dataLuns: readonly number[];
}

const PLAIN: ImageSecurity = { type: "Standard", plain: true, trustedLaunch: false, confidential: false };

/** Source: REST reference of gallery images, feature SecurityType; "Supported" ones are good for plain VMs too. */
const BY_TYPE: Readonly<Record<string, Omit<ImageSecurity, "type">>> = {
  trustedlaunch: { plain: false, trustedLaunch: true, confidential: false },
  trustedlaunchsupported: { plain: true, trustedLaunch: true, confidential: false },
  confidentialvm: { plain: false, trustedLaunch: false, confidential: true },
  confidentialvmsupported: { plain: true, trustedLaunch: false, confidential: true },
  trustedlaunchandconfidentialvmsupported: { plain: true, trustedLaunch: true, confidential: true },
};

export function securityOf(
  features: readonly { readonly name?: string; readonly value?: string }[] | undefined,
): ImageSecurity {
  const type = features?.find((f) => f.name?.toLowerCase() === "securitytype")?.value ?? "";
  const known = BY_TYPE[type.toLowerCase()];
  return known === undefined ? PLAIN : { type, ...known };
}

/** @throws Fault failed_precondition with the remedy */
export function usableImage(image: PodVmImage, config: AzureConfig): PodVmImage {
  const { arch, tee, trustedLaunch, sshPublicKey } = config;
  const { name, security, gen2 } = image;
  const is = gen2 ? `security type ${security.type}` : "generation 1";
  if (image.arch !== arch) throw unusable(`image ${name} is for ${image.arch}, providers.azure.arch is ${arch}`);
  if (tee !== "none" && !(gen2 && security.confidential)) {
    throw unusable(
      `image ${name} is of ${is}, a confidential VM needs generation 2 and ConfidentialVmSupported: publish it so, or set providers.azure.tee to "none"`,
    );
  }
  if (tee === "none" && trustedLaunch && !(gen2 && security.trustedLaunch)) {
    throw unusable(
      `image ${name} is of ${is}, trusted launch needs generation 2 and TrustedLaunchSupported: set providers.azure.trustedLaunch to false`,
    );
  }
  if (tee === "none" && !trustedLaunch && !security.plain) {
    throw unusable(`image ${name} is of ${is}, which no plain VM can be made of: choose another image`);
  }
  if (image.specialised && sshPublicKey !== undefined) {
    throw unusable(
      `image ${name} is specialised and takes no key: leave out providers.azure.sshPublicKey, or publish it generalised`,
    );
  }
  return image;
}

export function unusable(message: string): Fault {
  return new Fault("failed_precondition", message, { provider: "azure", kind: "setup" });
}
