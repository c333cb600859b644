import type { Image } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import { Cached } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";

/** What a launch needs to know of its image. */
export interface PodVmImage {
  readonly id: string;
  readonly rootDevice: string;
  readonly rootDiskGiB: number;
  /** All EBS devices, the root included: each becomes a volume that has to go with the VM. */
  readonly devices: readonly string[];
}

const KEEP_MS = 300_000;

/** The default image and those that pods may choose, looked up once in a while. */
export class Images {
  readonly #api: Ec2Api;
  readonly #config: AwsConfig;
  /** "" = the newest that the name finds. */
  readonly #cached: Cached<string, PodVmImage>;

  constructor(deps: { readonly api: Ec2Api; readonly config: AwsConfig; readonly now: () => Date }) {
    this.#api = deps.api;
    this.#config = deps.config;
    const load = async (id: string, call: Call): Promise<PodVmImage> =>
      usableImage(await this.find(id === "" ? undefined : id, call), deps.config);
    this.#cached = new Cached({ load, keepMs: KEEP_MS, clock: deps });
  }

  /**
   * @param asked the pod's own choice; undefined = the configured one
   * @returns undefined when the launch template is to say it
   * @throws Fault invalid_argument for an image that pods may not choose, failed_precondition for one that cannot be used
   */
  async resolve(asked: string | undefined, call: Call): Promise<PodVmImage | undefined> {
    const { imageId, imageName, images } = this.#config;
    if (asked !== undefined && asked !== imageId && !images.includes(asked)) {
      const allowed = [imageId, ...images].filter((i) => i !== undefined).join(", ") || "none";
      throw new Fault(
        "invalid_argument",
        `image "${asked}" is not among those that providers.aws.images allows: ${allowed}`,
        { provider: "aws" },
      );
    }
    const id = asked ?? imageId;
    if (id === undefined && imageName === undefined) return undefined;
    return this.#cached.get(id ?? "", call);
  }

  /** By id, else the newest whose name matches. @throws Fault failed_precondition */
  async find(id: string | undefined, call: Call): Promise<Image> {
    const { imageName, imageOwners, arch, region } = this.#config;
    const filters = [
      { Name: "name", Values: [imageName ?? ""] },
      { Name: "architecture", Values: [arch] },
      { Name: "state", Values: ["available"] },
    ];
    const input = id === undefined ? { Owners: [...imageOwners], Filters: filters } : { ImageIds: [id] };
    const found = await this.#api.describeImages(input, call);
    const newest = found.toSorted((a, b) => ((a.CreationDate ?? "") < (b.CreationDate ?? "") ? 1 : -1))[0];
    if (newest !== undefined) return newest;
    throw setUp(
      id === undefined
        ? `no ${arch} image of ${imageOwners.join(", ")} in ${region} is named "${imageName}": correct providers.aws.imageName`
        : `image ${id} is not in ${region}: correct providers.aws.imageId, or copy the image to this region`,
    );
  }
}

/** @throws Fault failed_precondition with the remedy */
export function usableImage(image: Image, config: AwsConfig): PodVmImage {
  const id = image.ImageId ?? "";
  if (image.State !== "available") throw setUp(`image ${id} is ${image.State}, not available: choose another`);
  if (image.Architecture !== config.arch) {
    throw setUp(`image ${id} is for ${image.Architecture}, providers.aws.arch is ${config.arch}`);
  }
  const uefi = image.BootMode === "uefi" || image.BootMode === "uefi-preferred";
  if (config.tee === "sev-snp" && !uefi) {
    throw setUp(
      `image ${id} boots with ${image.BootMode ?? "legacy-bios"}, SEV-SNP needs UEFI: register it with --boot-mode uefi`,
    );
  }
  const disks = (image.BlockDeviceMappings ?? []).filter((m) => m.Ebs !== undefined);
  const root = disks.find((m) => m.DeviceName === image.RootDeviceName);
  if (root?.DeviceName === undefined) throw setUp(`image ${id} has no EBS root device: register it with one`);
  return {
    ...{ id, rootDevice: root.DeviceName, rootDiskGiB: root.Ebs?.VolumeSize ?? 1 },
    devices: disks.map((m) => m.DeviceName).filter((name) => name !== undefined),
  };
}

function setUp(message: string): Fault {
  return new Fault("failed_precondition", message, { provider: "aws" });
}
