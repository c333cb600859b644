import { mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Type } from "typebox";
import type { Call } from "../base/call.ts";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { readIfThere, writeFileAtomic } from "../base/files.ts";
import { VERSION } from "../base/version.ts";
import { convertDisk, DISK_FORMATS, type DiskFormat, rootLabel, sha256Of, writeBootDisk } from "./bootdisk/index.ts";
import { makeDisk, SOURCE_DATE_SECONDS } from "./disk.ts";
import { DISK_MODULES, diskInitScript, diskKernelParams } from "./disk-init.ts";
import { hashOf, ImageInputs, type ImageOptions, isFile } from "./image-inputs.ts";
import { makeUnifiedKernel, type SigningKey } from "./make-unified-kernel.ts";
import { resolveBootStub } from "./packages.ts";

export interface DiskOptions extends ImageOptions {
  readonly formats: readonly DiskFormat[];
  /** For firmware that insists on Secure Boot. */
  readonly signing?: SigningKey;
}

/** A disk file and what it holds. */
export interface BuiltDisk {
  readonly path: string;
  /** Of the file. */
  readonly sha256: string;
}

export interface BuiltDisks {
  readonly disks: Readonly<Partial<Record<DiskFormat, BuiltDisk>>>;
  /** Node's name. */
  readonly arch: string;
  /** False when what was there already is what would have been built. */
  readonly rebuilt: boolean;
}

/**
 * Of the root file system in the image, MiB: with the partitions before it the disk has 1 GiB. It grows to what the
 * cloud's disk has when a VM boots; what is not used here is neither stored nor sent.
 */
const ROOT_MIB = 974;
const MANIFEST = "disks.json";
/** Raised whenever the code below bootdisk/ writes other bytes for the same input: disks that are there are built anew. */
const RECIPE = 2;

const DiskFile = Type.Object({ file: Type.String(), sha256: Type.String() });
const Manifest = Type.Object({
  inputHash: Type.String(),
  arch: Type.String(),
  disks: Type.Object({
    raw: Type.Optional(DiskFile),
    qcow2: Type.Optional(DiskFile),
    vhd: Type.Optional(DiskFile),
  }),
});

/**
 * Builds disks that UEFI firmware boots, one file for each format, and disks.json beside them; or leaves them when
 * nothing that goes into them has changed.
 * @throws Fault as buildImage, and failed_precondition when signing does not work
 */
export async function buildDisks(options: DiskOptions, call: Call): Promise<BuiltDisks> {
  const outDir = resolve(options.outDir);
  const inputs = await ImageInputs.resolve(options, call);
  const stub = await resolveBootStub(inputs.cacheDir, call);
  const signing = options.signing === undefined ? [] : [await readFile(options.signing.cert, "utf8")];
  const recipes = [RECIPE, ...[makeDisk, makeUnifiedKernel, convertDisk].map(String)];
  const texts = [diskInitScript({ virtio: [], hyperv: [] }), DISK_MODULES, diskKernelParams("")];
  const identity = hashOf([
    ...[inputs.treeHash, inputs.bundleSha256, stub, ROOT_MIB, VERSION],
    ...[recipes, texts, signing],
  ]);
  const before = await readDisks(outDir);
  const there = before?.inputHash === identity ? before.disks : {};
  const missing = options.formats.filter((format) => there[format] === undefined);
  if (missing.length === 0) return { disks: there, arch: inputs.arch, rebuilt: false };

  const tree = await inputs.tree(call);
  const [stubDeb = ""] = await inputs.fetch([stub], call);
  options.onProgress?.("writing the disks");
  const work = await mkdtemp(join(outDir, ".build-"));
  try {
    const rootPath = join(work, "root.ext4");
    const { guestBundleDir } = options;
    await makeDisk({ tree, guestBundleDir, target: rootPath, sizeMiB: ROOT_MIB }, call);
    const cmdline = diskKernelParams(rootLabel(identity)).join(" ");
    const unifiedKernelPath = await makeUnifiedKernel(
      { tree, stubDeb, cmdline, identity, signing: options.signing, dir: work },
      call,
    );
    const raw = join(work, "disk");
    const { arch } = inputs;
    await writeBootDisk({ arch, unifiedKernelPath, rootPath, rootMiB: ROOT_MIB, identity, target: raw }, call);
    await rm(rootPath);
    const disks: Partial<Record<DiskFormat, BuiltDisk>> = { ...there };
    for (const format of missing) {
      options.onProgress?.(`writing ${format}`);
      const path = join(work, `podvm.${format}`);
      await convertDisk(raw, format, path, { dateSeconds: SOURCE_DATE_SECONDS, identity }, call);
      disks[format] = { path: join(outDir, `podvm.${format}`), sha256: await sha256Of(path, call) };
    }
    for (const format of missing) await rename(join(work, `podvm.${format}`), join(outDir, `podvm.${format}`));
    await writeManifest(outDir, inputs, identity, disks);
    return { disks, arch, rebuilt: true };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The disks of a directory that are still there. @throws Fault invalid_argument when disks.json is damaged */
export async function readDisks(
  dir: string,
): Promise<(Pick<BuiltDisks, "disks" | "arch"> & { readonly inputHash: string }) | undefined> {
  const path = join(resolve(dir), MANIFEST);
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", `${path} is not JSON: remove it and build the disks again`, {}, { cause });
  }
  const manifest = parseConfig(Manifest, json, path);
  const disks: Partial<Record<DiskFormat, BuiltDisk>> = {};
  for (const format of DISK_FORMATS) {
    const entry = manifest.disks[format];
    if (entry === undefined) continue;
    const file = join(resolve(dir), entry.file);
    if (await isFile(file)) disks[format] = { path: file, sha256: entry.sha256 };
  }
  return { disks, arch: manifest.arch, inputHash: manifest.inputHash };
}

async function writeManifest(
  outDir: string,
  inputs: ImageInputs,
  inputHash: string,
  disks: BuiltDisks["disks"],
): Promise<void> {
  const manifest = {
    version: VERSION,
    arch: inputs.arch,
    inputHash,
    rootLabel: rootLabel(inputHash),
    disks: Object.fromEntries(
      Object.entries(disks).map(([format, { sha256 }]) => [format, { file: `podvm.${format}`, sha256 }]),
    ),
    node: { sha256: inputs.nodeSha256 },
    guestBundle: { sha256: inputs.bundleSha256 },
    packages: inputs.packages.map((p) => `${p.name}=${p.version}`),
  };
  await writeFileAtomic(join(outDir, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`, 0o644);
}
