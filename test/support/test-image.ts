import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { type Header, pack } from "tar-stream";

export type LayerEntry = Partial<Omit<Header, "name">> & { readonly name: string; readonly content?: string | Buffer };

export interface TestImage {
  /** JSON. */
  readonly manifest: Buffer;
  readonly mediaType: string;
  readonly digest: string;
  /** Config and layers by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
  /** Digests of the layers as they are sent, lowest first. */
  readonly layers: readonly string[];
}

export interface ImageOptions {
  readonly compression?: "gzip" | "zstd" | "none";
  readonly architecture?: string;
  readonly diffIds?: readonly string[];
}

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI = "application/vnd.oci.image";

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** A tar archive, as a layer is. */
export async function makeLayer(entries: readonly LayerEntry[]): Promise<Buffer> {
  const tar = pack();
  for (const { content, ...header } of entries) {
    const whole = { mtime: new Date(1e12), ...header };
    if ((header.type ?? "file") === "file") tar.entry(whole, Buffer.from((content ?? "") as string));
    else tar.entry(whole);
  }
  tar.finalize();
  const parts: Buffer[] = [];
  for await (const part of tar) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** An OCI image of the given layers, lowest first. */
export function makeImage(layers: readonly Buffer[], options: ImageOptions = {}): TestImage {
  const { compression = "gzip", architecture = process.arch === "x64" ? "amd64" : process.arch } = options;
  const squeeze = { gzip: gzipSync, zstd: zstdCompressSync, none: (b: Buffer) => b }[compression];
  const sent = layers.map((layer) => squeeze(layer));
  const config = Buffer.from(
    JSON.stringify({
      ...{ architecture, os: "linux", config: {} },
      rootfs: { type: "layers", diff_ids: options.diffIds ?? layers.map(sha256) },
    }),
  );
  const descriptor = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: sha256(bytes), size: bytes.length });
  const suffix = compression === "none" ? "" : `+${compression}`;
  const manifest = Buffer.from(
    JSON.stringify({
      ...{ schemaVersion: 2, mediaType: OCI_MANIFEST },
      config: descriptor(`${OCI}.config.v1+json`, config),
      layers: sent.map((bytes) => descriptor(`${OCI}.layer.v1.tar${suffix}`, bytes)),
    }),
  );
  return {
    ...{ manifest, mediaType: OCI_MANIFEST, digest: sha256(manifest), layers: sent.map(sha256) },
    blobs: new Map([config, ...sent].map((bytes) => [sha256(bytes), bytes])),
  };
}

/** As a file for `ctr images import`. Source: OCI image layout; the annotation is the one that containerd reads. */
export async function ociArchive(image: TestImage, name: string): Promise<Buffer> {
  const entry = { mediaType: image.mediaType, digest: image.digest, size: image.manifest.length };
  const index = { schemaVersion: 2, manifests: [{ ...entry, annotations: { "io.containerd.image.name": name } }] };
  const blobs = new Map([...image.blobs, [image.digest, image.manifest]]);
  return makeLayer([
    { name: "oci-layout", content: JSON.stringify({ imageLayoutVersion: "1.0.0" }) },
    { name: "index.json", content: JSON.stringify(index) },
    ...[...blobs].map(([digest, content]) => ({ name: `blobs/${digest.replace(":", "/")}`, content })),
  ]);
}

/** An index that names images by platform. */
export function makeIndex(
  images: readonly { readonly image: TestImage; readonly architecture: string; readonly variant?: string }[],
) {
  const index = Buffer.from(
    JSON.stringify({
      ...{ schemaVersion: 2, mediaType: OCI_INDEX },
      manifests: images.map(({ image, ...platform }) => ({
        ...{ mediaType: image.mediaType, digest: image.digest, size: image.manifest.length },
        platform: { os: "linux", ...platform },
      })),
    }),
  );
  return { manifest: index, mediaType: OCI_INDEX, digest: sha256(index) };
}
