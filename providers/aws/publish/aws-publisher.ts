import { randomUUID } from "node:crypto";
import { stat } from "node:fs/promises";
import type { Image, Snapshot, Tag } from "@aws-sdk/client-ec2";
import { type Call, withDeadline } from "../../../src/base/call.ts";
import { Fault } from "../../../src/base/fault.ts";
import type { Logger } from "../../../src/base/log.ts";
import type { ImagePublisher, ImageToPublish, PublishedImage, PublishProgress } from "../../../src/provider/index.ts";
import { OWN_TAG_PREFIX, OWNER, OWNER_TAG } from "../tags.ts";
import type { PublishConfig } from "./config.ts";
import type { ImagesApi } from "./images-api.ts";
import { awsCodeOf } from "./publish-faults.ts";
import { UPLOADED_TAG, uploadSnapshot } from "./snapshot-upload.ts";

/** SHA-256 of the disk file: on the image and on its snapshot. */
export const CONTENT_TAG = `${OWN_TAG_PREFIX}content`;
const TEE_TAG = `${OWN_TAG_PREFIX}tee`;

const GIB = 1024 ** 3;
const ROOT_DEVICE = "/dev/xvda";
/** After that EBS gives a snapshot up that nobody writes to, minutes: what is left of an upload costs nothing for long. */
const SNAPSHOT_TIMEOUT_MINUTES = 60;
/** What is removed after a failure must not hold its report up for ever, ms. */
const UNDO_MS = 60_000;
/** How long EC2 may not show what it has made, in looks. */
const HIDDEN_LOOKS = 20;

type Report = (progress: PublishProgress) => void;

/** Publishes disks as AMIs, through the EBS direct APIs: no bucket and no import task is needed. */
export class AwsPublisher implements ImagePublisher {
  readonly #api: ImagesApi;
  readonly #config: PublishConfig;
  readonly #log: Logger;

  constructor(deps: { readonly api: ImagesApi; readonly config: PublishConfig; readonly log: Logger }) {
    this.#api = deps.api;
    this.#config = deps.config;
    this.#log = deps.log;
  }

  async publish(image: ImageToPublish, call: Call, onProgress: Report = () => undefined): Promise<PublishedImage> {
    if (image.format !== "raw")
      throw new Fault("invalid_argument", `an AMI is made of a raw disk, not of ${image.format}`);
    onProgress({ step: "looking for the image" });
    const there = await this.#existing(image, call);
    if (there !== undefined) {
      await this.#untilAvailable(there, onProgress, call);
      return { imageId: there, created: false };
    }
    const snapshotId = await this.#snapshot(image, onProgress, call);
    onProgress({ step: "registering the image" });
    const registered = await this.#register(image, snapshotId, call);
    await this.#untilAvailable(registered.imageId, onProgress, call);
    return registered;
  }

  async unpublish(imageId: string, call: Call): Promise<void> {
    const [image] = await this.#api.images("image-id", [imageId], call);
    if (image === undefined) return;
    if (tagOf(image.Tags, OWNER_TAG) !== OWNER) {
      throw new Fault("failed_precondition", `${imageId} was not made by kata-remote: remove it in EC2's console`, {
        provider: "aws",
      });
    }
    await this.#api.deregisterImage(imageId, call);
    for (const device of image.BlockDeviceMappings ?? []) {
      const { SnapshotId: snapshotId } = device.Ebs ?? {};
      if (snapshotId !== undefined) await this.#removeSnapshot(snapshotId, call);
    }
  }

  async close(): Promise<void> {
    this.#api.close();
  }

  /** The image with this name, if it is this content's. @throws Fault already_exists when it is another's */
  async #existing({ name, contentHash, arch, tee }: ImageToPublish, call: Call): Promise<string | undefined> {
    const [image] = await this.#api.images("name", [name], call);
    if (image?.ImageId === undefined) return undefined;
    const same =
      tagOf(image.Tags, CONTENT_TAG) === contentHash &&
      tagOf(image.Tags, TEE_TAG) === tee &&
      image.Architecture === arch;
    if (same) return image.ImageId;
    throw new Fault(
      "already_exists",
      `the image ${image.ImageId} is called "${name}" and has another content: choose another name, or unpublish it`,
      { provider: "aws" },
    );
  }

  /** A completed snapshot of the disk: one that is there, the rest of an upload, or a new one. */
  async #snapshot(image: ImageToPublish, report: Report, call: Call): Promise<string> {
    const known = await this.#api.snapshotsTagged(CONTENT_TAG, image.contentHash, call);
    for (const failed of known.filter((s) => s.State === "error")) await this.#removeSnapshot(failed.SnapshotId, call);
    const completed = known.find((s) => s.State === "completed");
    if (completed?.SnapshotId !== undefined) return completed.SnapshotId;
    const pending = known.find((s) => s.State === "pending");
    const snapshotId = pending?.SnapshotId ?? (await this.#start(image, call));
    const uploaded = Number(tagOf(pending?.Tags, UPLOADED_TAG) ?? 0);
    try {
      const deps = { api: this.#api, config: this.#config, onProgress: report };
      await uploadSnapshot(snapshotId, image.file, uploaded, deps, call);
      await this.#untilCompleted(snapshotId, report, call);
      return snapshotId;
    } catch (e) {
      const fault = Fault.from(e);
      // What a next call can go on with stays; EBS itself gives it up after an hour.
      if (fault.retryable && !call.signal.aborted) throw fault;
      await this.#undo(snapshotId);
      throw fault;
    }
  }

  async #start(image: ImageToPublish, call: Call): Promise<string> {
    const { size } = await stat(image.file);
    const { snapshotKmsKeyArn } = this.#config;
    const { SnapshotId: snapshotId } = await this.#api.startSnapshot(
      {
        VolumeSize: Math.ceil(size / GIB),
        Description: `kata-remote pod VM image ${image.name}`,
        Tags: this.#tags(image),
        ClientToken: randomUUID(),
        Timeout: SNAPSHOT_TIMEOUT_MINUTES,
        ...(snapshotKmsKeyArn === undefined ? {} : { Encrypted: true, KmsKeyArn: snapshotKmsKeyArn }),
      },
      call,
    );
    if (snapshotId === undefined) throw new Fault("internal", "StartSnapshot gave no snapshot id", { provider: "aws" });
    return snapshotId;
  }

  async #untilCompleted(id: string, report: Report, call: Call): Promise<void> {
    for (let looks = 0; ; looks += 1) {
      const snapshot: Snapshot | undefined = await this.#api.snapshot(id, call);
      if (snapshot?.State === "completed") return;
      if (snapshot?.State === "error" || (snapshot === undefined && looks >= HIDDEN_LOOKS)) {
        const why = snapshot?.StateMessage ?? "EC2 does not show it";
        throw new Fault("internal", `the snapshot ${id} has failed: ${why}`, { provider: "aws" });
      }
      report({ step: `waiting for the snapshot ${id} (${snapshot?.Progress || "0%"})` });
      await this.#api.pause(call);
    }
  }

  /** Not idempotent in EC2: the name is what a repetition is known by. */
  async #register(image: ImageToPublish, snapshotId: string, call: Call): Promise<PublishedImage> {
    const { volumeGiB, tpm } = this.#config;
    const { size } = await stat(image.file);
    try {
      const imageId = await this.#api.registerImage(
        {
          ...{ Name: image.name, Description: "kata-remote pod VM image", Architecture: image.arch },
          ...{ BootMode: "uefi", EnaSupport: true, ImdsSupport: "v2.0", VirtualizationType: "hvm" },
          ...(tpm && image.arch === "x86_64" ? { TpmSupport: "v2.0" } : {}),
          RootDeviceName: ROOT_DEVICE,
          BlockDeviceMappings: [
            {
              DeviceName: ROOT_DEVICE,
              Ebs: {
                ...{ SnapshotId: snapshotId, VolumeType: "gp3", DeleteOnTermination: true },
                VolumeSize: Math.max(volumeGiB, Math.ceil(size / GIB)),
              },
            },
          ],
          TagSpecifications: [{ ResourceType: "image", Tags: this.#tags(image) }],
        },
        call,
      );
      return { imageId, created: true };
    } catch (e) {
      if (awsCodeOf(e) !== "InvalidAMIName.Duplicate") throw e;
      // A request of ours whose answer was lost, or somebody who publishes the same at the same time.
      const there = await this.#existing(image, call);
      if (there === undefined) throw e;
      const [made] = await this.#api.images("image-id", [there], call);
      if (made !== undefined && !snapshotsOf(made).includes(snapshotId)) await this.#undo(snapshotId);
      return { imageId: there, created: false };
    }
  }

  async #untilAvailable(imageId: string, report: Report, call: Call): Promise<void> {
    for (let looks = 0; ; looks += 1) {
      const [image] = await this.#api.images("image-id", [imageId], call);
      if (image?.State === "available") return;
      if ((image !== undefined && image.State !== "pending") || (image === undefined && looks >= HIDDEN_LOOKS)) {
        const why = image?.StateReason?.Message ?? `it is ${image?.State ?? "not shown by EC2"}`;
        throw new Fault("failed_precondition", `the image ${imageId} cannot be used: ${why}`, { provider: "aws" });
      }
      report({ step: `waiting for the image ${imageId}` });
      await this.#api.pause(call);
    }
  }

  /** Whoever called has given up, or has something better to report than this. */
  async #undo(snapshotId: string): Promise<void> {
    try {
      await this.#removeSnapshot(snapshotId, withDeadline(UNDO_MS));
    } catch (e) {
      this.#log.warn({ snapshotId, err: e }, "the rest of an upload could not be removed: EBS does that in an hour");
    }
  }

  async #removeSnapshot(id: string | undefined, call: Call): Promise<void> {
    try {
      if (id !== undefined) await this.#api.deleteSnapshot(id, call);
    } catch (e) {
      // Gone already, or another image was registered from it.
      if (!["InvalidSnapshot.NotFound", "InvalidSnapshot.InUse"].includes(awsCodeOf(e) ?? "")) throw e;
    }
  }

  #tags(image: ImageToPublish): Tag[] {
    const own = { Name: image.name, [OWNER_TAG]: OWNER, [CONTENT_TAG]: image.contentHash, [TEE_TAG]: image.tee };
    return Object.entries({ ...this.#config.tags, ...image.tags, ...own }).map(([Key, Value]) => ({ Key, Value }));
  }
}

function snapshotsOf(image: Image): readonly (string | undefined)[] {
  return (image.BlockDeviceMappings ?? []).map((d) => d.Ebs?.SnapshotId);
}

function tagOf(tags: readonly Tag[] | undefined, key: string): string | undefined {
  return tags?.find((t) => t.Key === key)?.Value;
}
