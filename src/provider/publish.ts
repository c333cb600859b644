import type { Static, TSchema } from "typebox";
import type { Call } from "../base/call.ts";
import type { ProviderDeps } from "./provider-deps.ts";

/** Of a disk image file. `vhd`: fixed size, the data followed by a footer of 512 bytes, 1 MiB aligned without it. */
export type DiskFormat = "raw" | "qcow2" | "vhd";

/** A disk that boots through UEFI, as `kata-remote image build --format` makes it. */
export interface ImageToPublish {
  /** Path of the file, in one of `PublisherPlugin.formats`. */
  readonly file: string;
  readonly format: DiskFormat;
  /** SHA-256 of the file, 64 hexadecimal digits in lower case: what makes two images the same. */
  readonly contentHash: string;
  /** For people, and for `imageName` of the provider's configuration. At most 80 of A-Z a-z 0-9 . _ -, no other ends. */
  readonly name: string;
  readonly arch: "x86_64" | "arm64";
  /** What the VMs of it are to be; an image for "none" need not boot in a confidential VM. */
  readonly tee: "none" | "sev-snp" | "tdx";
  /** On everything that is made, beside the publisher's own (owner and content hash). */
  readonly tags: Readonly<Record<string, string>>;
}

export interface PublishedImage {
  /** As `imageId` of the provider's configuration takes it. */
  readonly imageId: string;
  /** False when it was there already. */
  readonly created: boolean;
}

/** What is being done now: told whenever it has changed, for people. */
export interface PublishProgress {
  /** A few words: "uploading", "waiting for the snapshot". */
  readonly step: string;
  /** Of a step whose length is known. Data that need not be sent, as it is all zero, is not counted. */
  readonly doneBytes?: number;
  readonly totalBytes?: number;
}

/** Uploads disks to one account and place of a cloud and registers them there. Remembers nothing: the cloud's tags do. */
export interface ImagePublisher {
  /**
   * Resolves when VMs can be made of it. The same content (hash, name, arch, tee) gives the same image, whoever published it.
   * An upload that ended with a retryable Fault, or whose process died, is gone on with by the next call. A cancelled
   * one, and one that failed for good, has removed all that it made.
   * @throws Fault already_exists when the name is another content's; with the remedy, as `Provider` does
   */
  publish(image: ImageToPublish, call: Call, onProgress?: (progress: PublishProgress) => void): Promise<PublishedImage>;
  /** Removes the image and all that belongs to it. Only what this publisher made; an unknown id is a success. */
  unpublish(imageId: string, call: Call): Promise<void>;
  close(): Promise<void>;
}

/** A provider's part in `kata-remote image publish`. */
export interface PublisherPlugin<S extends TSchema = TSchema> {
  /** Where images go. Keys that the provider's own configuration has as well mean the same and are taken from there. */
  readonly configSchema: S;
  /** Formats that `publish` takes, best first. */
  readonly formats: readonly DiskFormat[];
  /** Cloud actions the credentials need. */
  readonly permissions: readonly string[];
  open(config: Static<S>, deps: ProviderDeps): Promise<ImagePublisher>;
}
