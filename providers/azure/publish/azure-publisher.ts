import { createHash } from "node:crypto";
import type { GalleryImage, GalleryImageVersion } from "@azure/arm-compute";
import { type Call, withDeadline } from "../../../src/base/call.ts";
import { Fault } from "../../../src/base/fault.ts";
import type { Logger } from "../../../src/base/log.ts";
import type { ImagePublisher, ImageToPublish, PublishedImage, PublishProgress } from "../../../src/provider/index.ts";
import { parseImageName } from "../image-name.ts";
import { isOwned, NAME_TAG, OWN_TAG_PREFIX, OWNER_TAG, tag } from "../tags.ts";
import type { PublishConfig } from "./config.ts";
import { checkVhd } from "./disk-parts.ts";
import type { ImagesApi } from "./images-api.ts";
import { uploadDisk } from "./upload-disk.ts";

/** SHA-256 of the disk file: on the version and on the disk that it is made of. */
export const CONTENT_TAG = `${OWN_TAG_PREFIX}content`;
const TEE_TAG = `${OWN_TAG_PREFIX}tee`;
/** What is removed after a failure must not hold its report up for ever, ms. */
const UNDO_MS = 120_000;

type Report = (progress: PublishProgress) => void;
interface PublisherDeps {
  readonly api: ImagesApi;
  readonly config: PublishConfig;
  readonly ca: string | undefined;
  readonly log: Logger;
  readonly now: () => Date;
}

/**
 * Publishes disks as versions of an image in a compute gallery: a managed disk is made and written to directly, so no
 * storage account is needed, and is removed when the version has been made of it.
 */
export class AzurePublisher implements ImagePublisher {
  readonly #deps: PublisherDeps;

  constructor(deps: PublisherDeps) {
    this.#deps = deps;
  }

  async publish(image: ImageToPublish, call: Call, onProgress: Report = () => undefined): Promise<PublishedImage> {
    const { api } = this.#deps;
    if (image.format !== "vhd") {
      throw new Fault(
        "invalid_argument",
        `Azure takes a VHD of fixed size, not ${image.format}: build it with --format vhd`,
      );
    }
    onProgress({ step: "looking for the image" });
    const definition = this.#definitionName(image);
    const there = await this.#existing(definition, image, call);
    if (there?.provisioningState === "Failed") await api.deleteVersion(definition, there.name ?? "", call);
    if (there?.name !== undefined && there.provisioningState !== "Failed") {
      await this.#untilVersion(definition, there.name, onProgress, call);
      await this.#removeDisk(image, call);
      return { imageId: this.#versionId(definition, there.name), created: false };
    }
    const bytes = await checkVhd(image.file);
    onProgress({ step: "preparing the gallery" });
    await this.#prepare(definition, image, call);
    try {
      await this.#upload(image, bytes, onProgress, call);
      const name = this.#versionName();
      await api.beginVersion(definition, name, this.#version(image), call);
      await this.#untilVersion(definition, name, onProgress, call);
      await this.#removeDisk(image, call);
      return { imageId: this.#versionId(definition, name), created: true };
    } catch (e) {
      const fault = Fault.from(e);
      // What a next call can go on with stays.
      if (!fault.retryable || call.signal.aborted) await this.#undo(definition, image);
      throw fault;
    }
  }

  async unpublish(imageId: string, call: Call): Promise<void> {
    const { api, config } = this.#deps;
    const parsed = parseImageName(imageId);
    const here =
      parsed?.kind === "gallery" &&
      parsed.version !== undefined &&
      parsed.gallery.toLowerCase() === config.gallery.toLowerCase() &&
      parsed.group.toLowerCase() === config.resourceGroup.toLowerCase();
    if (!here || parsed.version === undefined) {
      const message = `"${imageId}" is no version of an image in gallery ${config.gallery} of resource group ${config.resourceGroup}`;
      throw new Fault("invalid_argument", message, { provider: "azure" });
    }
    const version = await api.getVersion(parsed.image, parsed.version, call);
    if (version !== undefined && !isOwned(version.tags)) {
      throw new Fault("failed_precondition", `${imageId} was not made by kata-remote: remove it in the portal`, {
        provider: "azure",
      });
    }
    if (version !== undefined) await api.deleteVersion(parsed.image, parsed.version, call);
    await this.#removeEmpty(parsed.image, call);
  }

  async close(): Promise<void> {
    // Nothing is held open: the SDK's connections end by themselves.
  }

  /** The version with this name, if it is this content's. @throws Fault already_exists when it is another's */
  async #existing(definition: string, image: ImageToPublish, call: Call): Promise<GalleryImageVersion | undefined> {
    const { api } = this.#deps;
    if ((await api.getDefinition(definition, call)) === undefined) return undefined;
    const versions = await api.listVersions(definition, call);
    const named = versions.filter((v) => tag(v.tags, NAME_TAG) === image.name && isOwned(v.tags));
    const other = named.find((v) => tag(v.tags, CONTENT_TAG) !== image.contentHash);
    if (other === undefined) return named[0];
    const message = `the image ${other.id} is called "${image.name}" and has another content: choose another name, or unpublish it`;
    throw new Fault("already_exists", message, { provider: "azure" });
  }

  async #prepare(definition: string, image: ImageToPublish, call: Call): Promise<void> {
    const { api, config } = this.#deps;
    const tags = { ...config.tags, [OWNER_TAG]: "kata-remote" };
    if ((await api.getGallery(call)) === undefined) {
      await api.putGallery({ location: config.location, tags, description: "Pod VM images of kata-remote" }, call);
    }
    const wanted = this.#definition(definition, image, tags);
    const there = await api.getDefinition(definition, call);
    if (there === undefined) return api.putDefinition(definition, wanted, call);
    const differs = (["osState", "hyperVGeneration", "architecture"] as const).find(
      (key) => there[key] !== wanted[key],
    );
    const type = (i: GalleryImage): string =>
      i.features?.find((f) => f.name === "SecurityType")?.value?.toLowerCase() ?? "";
    if (differs === undefined && type(there) === type(wanted)) return;
    const message = `gallery image ${definition} is of another kind (${differs ?? "SecurityType"}): name another in definition`;
    throw new Fault("failed_precondition", message, { provider: "azure" });
  }

  async #upload(image: ImageToPublish, bytes: number, onProgress: Report, call: Call): Promise<void> {
    const { api, config, ca } = this.#deps;
    const name = diskName(image);
    const there = await api.getDisk(name, call);
    if (there === undefined) {
      onProgress({ step: "making the disk" });
      await api.putDisk(
        name,
        {
          ...{ location: config.location, tags: this.#tags(image), osType: "Linux", hyperVGeneration: "V2" },
          ...{ sku: { name: "Standard_LRS" }, creationData: { createOption: "Upload", uploadSizeBytes: bytes } },
        },
        call,
      );
    }
    if (there?.diskState === "Unattached") return; // an earlier call has uploaded it all
    const address = await api.grantAccess(name, call);
    const { uploads, attempts, requestTimeoutMs: timeoutMs } = config;
    await uploadDisk(image.file, address, { uploads, attempts, timeoutMs, ca, onProgress }, call);
    await api.revokeAccess(name, call);
  }

  #untilVersion(definition: string, name: string, onProgress: Report, call: Call): Promise<void> {
    const onLook = (): void => onProgress({ step: `waiting for version ${name} of ${definition}` });
    return this.#deps.api.untilVersion(definition, name, onLook, call);
  }

  #definition(name: string, { arch, tee }: ImageToPublish, tags: Record<string, string>): GalleryImage {
    const { location, osState } = this.#deps.config;
    // "Supported": without guest state of its own, good for VMs of other kinds too.
    const value = tee === "none" ? "TrustedLaunchSupported" : "ConfidentialVmSupported";
    const secure = arch === "x86_64" ? { features: [{ name: "SecurityType", value }] } : {};
    return {
      ...{ location, tags, osType: "Linux", hyperVGeneration: "V2", ...secure },
      osState: osState === "specialised" ? "Specialized" : "Generalized",
      architecture: arch === "x86_64" ? "x64" : "Arm64",
      identifier: { publisher: "kata-remote", offer: "podvm", sku: name },
    };
  }

  #version(image: ImageToPublish): GalleryImageVersion {
    const { location, regions, resourceGroup, subscriptionId } = this.#deps.config;
    const group = `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}`;
    const id = `${group}/providers/Microsoft.Compute/disks/${diskName(image)}`;
    const targetRegions = [...new Set([location, ...regions])].map((name) => ({ name, regionalReplicaCount: 1 }));
    return {
      ...{ location, tags: this.#tags(image), publishingProfile: { targetRegions } },
      storageProfile: { osDiskImage: { hostCaching: "ReadWrite", source: { id } } },
    };
  }

  /** Later ones are newer, so that an image without a version is the newest: year, month and day, second of the day. */
  #versionName(): string {
    const now = this.#deps.now();
    const seconds = Math.floor((now.getTime() % 86_400_000) / 1000);
    return `${now.getUTCFullYear()}.${(now.getUTCMonth() + 1) * 100 + now.getUTCDate()}.${seconds}`;
  }

  #versionId(definition: string, version: string): string {
    const { subscriptionId, resourceGroup, gallery } = this.#deps.config;
    const group = `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}`;
    return `${group}/providers/Microsoft.Compute/galleries/${gallery}/images/${definition}/versions/${version}`;
  }

  /** SNP and TDX VMs are made of one image, which has both drivers. */
  #definitionName({ tee, arch }: ImageToPublish): string {
    const { definition, osState } = this.#deps.config;
    const kind = tee === "none" ? "plain" : "confidential";
    return definition ?? `podvm-${kind}-${arch}${osState === "specialised" ? "" : "-generalised"}`;
  }

  async #removeDisk(image: ImageToPublish, call: Call): Promise<void> {
    const { api } = this.#deps;
    const name = diskName(image);
    const disk = await api.getDisk(name, call);
    if (disk === undefined) return;
    if (/^Active(Upload|SAS)$/.test(disk.diskState ?? "")) await api.revokeAccess(name, call);
    await api.deleteDisk(name, call);
  }

  /** Whoever called has given up, or has something better to report than this. */
  async #undo(definition: string, image: ImageToPublish): Promise<void> {
    const call = withDeadline(UNDO_MS);
    const { api, log } = this.#deps;
    try {
      const half = await this.#existing(definition, image, call);
      if (half?.name !== undefined) await api.deleteVersion(definition, half.name, call);
      await this.#removeDisk(image, call);
      await this.#removeEmpty(definition, call);
    } catch (e) {
      log.warn(
        { disk: diskName(image), err: e },
        "the rest of a publication could not be removed: publish it again, or remove the disk",
      );
    }
  }

  /** What was made for this image alone. */
  async #removeEmpty(definition: string, call: Call): Promise<void> {
    const { api } = this.#deps;
    const image = await api.getDefinition(definition, call);
    if (image !== undefined) {
      if (!isOwned(image.tags) || (await api.listVersions(definition, call)).length > 0) return;
      await api.deleteDefinition(definition, call);
    }
    const gallery = await api.getGallery(call);
    if (gallery === undefined || !isOwned(gallery.tags) || (await api.listDefinitions(call)).length > 0) return;
    await api.deleteGallery(call);
  }

  #tags(image: ImageToPublish): Record<string, string> {
    const own = {
      [NAME_TAG]: image.name,
      [OWNER_TAG]: "kata-remote",
      [CONTENT_TAG]: image.contentHash,
      [TEE_TAG]: image.tee,
    };
    return { ...this.#deps.config.tags, ...image.tags, ...own };
  }
}

/** The same content has the same disk, whoever uploads it. It carries no cluster: no reconciler takes it for an orphan. */
function diskName({ contentHash, name, arch, tee }: ImageToPublish): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([contentHash, name, arch, tee]))
    .digest("hex");
  return `kata-remote-upload-${hash.slice(0, 16)}`;
}
