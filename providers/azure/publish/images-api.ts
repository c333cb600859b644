import type { Disk, Gallery, GalleryImage, GalleryImageVersion } from "@azure/arm-compute";
import type { Call } from "../../../src/base/call.ts";
import { type Clock, sleepOn } from "../../../src/base/clock.ts";
import { Fault } from "../../../src/base/fault.ts";
import type { ArmRequests, OperationOptions } from "../arm-requests.ts";
import type { AzureSdk } from "../azure-sdk.ts";
import { kindOf } from "../faults.ts";
import type { PublishConfig } from "./config.ts";

/** How long an upload may take, s: the address that it goes to is good for so long. */
const ACCESS_SECONDS = 86_400;
/** How long Azure may not show what it has made, in looks. */
const HIDDEN_LOOKS = 20;

interface Made {
  readonly provisioningState?: string;
}

/** The operations on disks and galleries that publishing uses, in its resource group. Each waits until Azure is done. */
export class ImagesApi {
  readonly #sdk: AzureSdk;
  readonly #requests: ArmRequests;
  readonly #config: PublishConfig;
  readonly #clock: Clock;

  constructor(deps: {
    readonly sdk: AzureSdk;
    readonly requests: ArmRequests;
    readonly config: PublishConfig;
    readonly clock: Clock;
  }) {
    this.#sdk = deps.sdk;
    this.#requests = deps.requests;
    this.#config = deps.config;
    this.#clock = deps.clock;
  }

  getDisk(name: string, call: Call): Promise<Disk | undefined> {
    return this.#find("read disk", (o) => this.#sdk.compute.disks.get(this.#group, name, o), call);
  }

  async putDisk(name: string, disk: Disk, call: Call): Promise<void> {
    await this.#write("create disk", (o) => this.#sdk.compute.disks.createOrUpdate(this.#group, name, disk, o), call);
    await this.#untilMade(`disk ${name}`, () => this.getDisk(name, call), call);
  }

  /** @returns the address that pages are written to */
  async grantAccess(name: string, call: Call): Promise<string> {
    const data = { access: "Write" as const, durationInSeconds: ACCESS_SECONDS };
    const ask = async (o: OperationOptions) => {
      const options = { ...o, updateIntervalInMs: this.#config.lookMs };
      return this.#sdk.compute.disks
        .grantAccess(this.#group, name, data, options)
        .pollUntilDone({ abortSignal: call.signal });
    };
    const { value } = await this.#requests.send("write", "open disk for upload", ask, call);
    if (value.accessSAS !== undefined) return value.accessSAS;
    throw new Fault("internal", `Azure gave no address to upload disk ${name} to`, { provider: "azure" });
  }

  /** From then on the disk can be used. */
  async revokeAccess(name: string, call: Call): Promise<void> {
    await this.#write("close disk", (o) => this.#sdk.compute.disks.revokeAccess(this.#group, name, o), call);
    for (;;) {
      const disk = await this.getDisk(name, call);
      if (disk === undefined || !/^Active(Upload|SAS)$/.test(disk.diskState ?? "")) return;
      await this.pause(call);
    }
  }

  async deleteDisk(name: string, call: Call): Promise<void> {
    await this.#remove("delete disk", (o) => this.#sdk.compute.disks.delete(this.#group, name, o), call);
    await this.#untilGone(() => this.getDisk(name, call), call);
  }

  getGallery(call: Call): Promise<Gallery | undefined> {
    return this.#find("read gallery", (o) => this.#sdk.compute.galleries.get(this.#group, this.#gallery, o), call);
  }

  async putGallery(gallery: Gallery, call: Call): Promise<void> {
    const begin = (o: OperationOptions) =>
      this.#sdk.compute.galleries.createOrUpdate(this.#group, this.#gallery, gallery, o);
    await this.#write("create gallery", begin, call);
    await this.#untilMade(`gallery ${this.#gallery}`, () => this.getGallery(call), call);
  }

  async deleteGallery(call: Call): Promise<void> {
    await this.#remove(
      "delete gallery",
      (o) => this.#sdk.compute.galleries.delete(this.#group, this.#gallery, o),
      call,
    );
    await this.#untilGone(() => this.getGallery(call), call);
  }

  getDefinition(name: string, call: Call): Promise<GalleryImage | undefined> {
    const ask = (o: OperationOptions) => this.#sdk.compute.galleryImages.get(this.#group, this.#gallery, name, o);
    return this.#find("read gallery image", ask, call);
  }

  listDefinitions(call: Call): Promise<readonly GalleryImage[]> {
    const list = (o: OperationOptions) => this.#sdk.compute.galleryImages.listByGallery(this.#group, this.#gallery, o);
    return this.#requests.all("list gallery images", list, call);
  }

  async putDefinition(name: string, image: GalleryImage, call: Call): Promise<void> {
    const begin = (o: OperationOptions) =>
      this.#sdk.compute.galleryImages.createOrUpdate(this.#group, this.#gallery, name, image, o);
    await this.#write("create gallery image", begin, call);
    await this.#untilMade(`gallery image ${name}`, () => this.getDefinition(name, call), call);
  }

  async deleteDefinition(name: string, call: Call): Promise<void> {
    const begin = (o: OperationOptions) => this.#sdk.compute.galleryImages.delete(this.#group, this.#gallery, name, o);
    await this.#remove("delete gallery image", begin, call);
    await this.#untilGone(() => this.getDefinition(name, call), call);
  }

  getVersion(definition: string, name: string, call: Call): Promise<GalleryImageVersion | undefined> {
    const ask = (o: OperationOptions) =>
      this.#sdk.compute.galleryImageVersions.get(this.#group, this.#gallery, definition, name, o);
    return this.#find("read gallery image version", ask, call);
  }

  listVersions(definition: string, call: Call): Promise<readonly GalleryImageVersion[]> {
    const list = (o: OperationOptions) =>
      this.#sdk.compute.galleryImageVersions.listByGalleryImage(this.#group, this.#gallery, definition, o);
    return this.#requests.all("list gallery image versions", list, call);
  }

  /** Resolves as soon as it has been accepted. */
  async beginVersion(definition: string, name: string, version: GalleryImageVersion, call: Call): Promise<void> {
    const begin = (o: OperationOptions) =>
      this.#sdk.compute.galleryImageVersions.createOrUpdate(this.#group, this.#gallery, definition, name, version, o);
    await this.#write("create gallery image version", begin, call);
  }

  /** @param onLook told before each wait */
  untilVersion(definition: string, name: string, onLook: () => void, call: Call): Promise<void> {
    const look = (): Promise<GalleryImageVersion | undefined> => {
      onLook();
      return this.getVersion(definition, name, call);
    };
    return this.#untilMade(`version ${name} of gallery image ${definition}`, look, call);
  }

  async deleteVersion(definition: string, name: string, call: Call): Promise<void> {
    const begin = (o: OperationOptions) =>
      this.#sdk.compute.galleryImageVersions.delete(this.#group, this.#gallery, definition, name, o);
    await this.#remove("delete gallery image version", begin, call);
    await this.#untilGone(() => this.getVersion(definition, name, call), call);
  }

  pause(call: Call): Promise<void> {
    return sleepOn(this.#clock, this.#config.lookMs, call);
  }

  get #group(): string {
    return this.#config.resourceGroup;
  }

  get #gallery(): string {
    return this.#config.gallery;
  }

  async #write(
    action: string,
    begin: (o: OperationOptions) => { submitted(): Promise<void> },
    call: Call,
  ): Promise<void> {
    await this.#requests.send("write", action, (o) => begin(o).submitted(), call);
  }

  async #remove(
    action: string,
    begin: (o: OperationOptions) => { submitted(): Promise<void> },
    call: Call,
  ): Promise<void> {
    try {
      await this.#requests.send("delete", action, (o) => begin(o).submitted(), call);
    } catch (e) {
      if (!isMissing(e)) throw e;
    }
  }

  async #find<T>(action: string, ask: (o: OperationOptions) => Promise<T>, call: Call): Promise<T | undefined> {
    try {
      return (await this.#requests.send("read", action, ask, call)).value;
    } catch (e) {
      if (isMissing(e)) return undefined;
      throw e;
    }
  }

  async #untilMade(what: string, look: () => Promise<Made | undefined>, call: Call): Promise<void> {
    for (let looks = 0; ; looks += 1) {
      const state = (await look())?.provisioningState;
      if (state === "Succeeded") return;
      if (state === "Failed" || state === "Canceled" || (state === undefined && looks >= HIDDEN_LOOKS)) {
        const message = `${what} could not be made: ${state ?? "Azure does not show it"}, see the activity log of the resource group`;
        throw new Fault("internal", message, { provider: "azure" });
      }
      await this.pause(call);
    }
  }

  async #untilGone(look: () => Promise<unknown>, call: Call): Promise<void> {
    while ((await look()) !== undefined) await this.pause(call);
  }
}

function isMissing(thrown: unknown): boolean {
  if (!(thrown instanceof Fault) || kindOf(thrown) === undefined) return false;
  return thrown.context.status === 404 && thrown.context.azureCode !== "ResourceGroupNotFound";
}
