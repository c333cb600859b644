import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";

/** What a container made from the image runs, as in the OCI image specification's `config`. */
export interface ImageConfig {
  readonly Cmd?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Env?: readonly string[];
  readonly WorkingDir?: string;
}

export interface ArchiveSpec {
  /** Full reference, e.g. `localhost/kata-remote/busybox:1`. */
  readonly name: string;
  /** The root file system; owners and modes are taken as they are. */
  readonly tree: string;
  readonly config: ImageConfig;
  /** Where the archive is put; replaced atomically. */
  readonly path: string;
  /** An empty directory to work in. */
  readonly workDir: string;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Same input, same bytes: sorted, no times, no names of users. */
const REPRODUCIBLE = [
  "--sort=name",
  "--mtime=@0",
  "--numeric-owner",
  "--format=posix",
  "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
];

/**
 * Writes one image as an OCI archive that `ctr images import` takes: one uncompressed layer.
 * Source: OCI image specification 1.1, image-layout.md and manifest.md; the annotations are those that containerd's
 * importer reads the name from.
 */
export async function writeArchive(spec: ArchiveSpec, call: Call): Promise<void> {
  const layout = join(spec.workDir, "layout");
  const blobs = join(layout, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const layerTar = join(spec.workDir, "layer.tar");
  await exec("tar", [...REPRODUCIBLE, "--xattrs", "-C", spec.tree, "-cf", layerTar, "."], call);
  const layer = await addBlob(blobs, "application/vnd.oci.image.layer.v1.tar", layerTar);
  const platform = { architecture: process.arch === "x64" ? "amd64" : process.arch, os: "linux" };
  const config = await addJson(blobs, spec.workDir, "application/vnd.oci.image.config.v1+json", {
    ...platform,
    created: "1970-01-01T00:00:00Z",
    config: spec.config,
    rootfs: { type: "layers", diff_ids: [layer.digest] },
  });
  const manifest = await addJson(blobs, spec.workDir, "application/vnd.oci.image.manifest.v1+json", {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config,
    layers: [layer],
  });
  const annotations = {
    "io.containerd.image.name": spec.name,
    "org.opencontainers.image.ref.name": spec.name.slice(spec.name.lastIndexOf(":") + 1),
  };
  await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, platform, annotations }] }),
  );
  const partial = `${spec.path}.${process.pid}.tmp`;
  await exec(
    "tar",
    [...REPRODUCIBLE, "--owner=0", "--group=0", "--mode=u=rwX,go=rX", "-C", layout, "-cf", partial, "."],
    call,
  );
  await rename(partial, spec.path);
}

async function addJson(blobs: string, workDir: string, mediaType: string, value: unknown): Promise<Descriptor> {
  const path = join(workDir, "blob.json");
  await writeFile(path, JSON.stringify(value));
  return addBlob(blobs, mediaType, path);
}

async function addBlob(blobs: string, mediaType: string, path: string): Promise<Descriptor> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Uint8Array);
  const hex = hash.digest("hex");
  const { size } = await stat(path);
  await copyFile(path, join(blobs, hex));
  await rm(path);
  return { mediaType, digest: `sha256:${hex}`, size };
}
