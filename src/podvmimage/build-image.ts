import { copyFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Call } from "../base/call.ts";
import { readIfThere, writeFileAtomic } from "../base/files.ts";
import { VERSION } from "../base/version.ts";
import { INITRD_MODULES, initScript, KERNEL_PARAMS } from "./boot-scripts.ts";
import { makeDisk } from "./disk.ts";
import { hashOf, ImageInputs, type ImageOptions, isFile } from "./image-inputs.ts";
import { makeInitrd } from "./initrd.ts";
import { kernelVersion } from "./root-tree.ts";

export interface BuiltImage {
  readonly imagePath: string;
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly manifestPath: string;
  readonly kernelParams: readonly string[];
  /** False when what was there already is what would have been built. */
  readonly rebuilt: boolean;
}

const FILES = { kernel: "vmlinuz", initrd: "initrd.img", disk: "disk.raw" } as const;
/** Virtual size of the disk. The file is sparse; the guest's changes go into each VM's own overlay. */
const DISK_MIB = 10 * 1024;

/**
 * Builds the pod VM image for a monitor of this host with plain tools, or leaves it when nothing that goes into it has
 * changed: kernel, initrd, disk, manifest.json. Two builds into one directory at a time are harmless: each replaces
 * whole files, the manifest last.
 * @throws Fault failed_precondition (not root, koffi not installed), unavailable (no apt, no network), invalid_argument
 */
export async function buildImage(options: ImageOptions, call: Call): Promise<BuiltImage> {
  const outDir = resolve(options.outDir);
  const inputs = await ImageInputs.resolve(options, call);
  const inputHash = hashOf([
    inputs.treeHash,
    inputs.bundleSha256,
    initScript([]),
    INITRD_MODULES,
    KERNEL_PARAMS,
    String(makeDisk),
    DISK_MIB,
    VERSION,
  ]);
  const built = (rebuilt: boolean): BuiltImage => ({
    imagePath: join(outDir, FILES.disk),
    kernelPath: join(outDir, FILES.kernel),
    initrdPath: join(outDir, FILES.initrd),
    manifestPath: join(outDir, "manifest.json"),
    kernelParams: KERNEL_PARAMS,
    rebuilt,
  });
  if (await isCurrent(built(false), inputHash)) return built(false);

  const tree = await inputs.tree(call);
  options.onProgress?.("writing the disk");
  const work = await mkdtemp(join(outDir, ".build-"));
  try {
    const version = await kernelVersion(tree);
    await copyFile(join(tree, "boot", `vmlinuz-${version}`), join(work, FILES.kernel));
    await writeFile(join(work, FILES.initrd), await makeInitrd(tree, version));
    const { guestBundleDir } = options;
    await makeDisk({ tree, guestBundleDir, target: join(work, FILES.disk), sizeMiB: DISK_MIB }, call);
    for (const name of Object.values(FILES)) await rename(join(work, name), join(outDir, name));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const manifest = {
    version: VERSION,
    arch: inputs.arch,
    kernel: { file: FILES.kernel },
    initrd: { file: FILES.initrd },
    disk: { file: FILES.disk },
    kernelParams: KERNEL_PARAMS,
    inputHash,
    node: { sha256: inputs.nodeSha256 },
    guestBundle: { sha256: inputs.bundleSha256 },
    packages: inputs.packages.map((p) => `${p.name}=${p.version}`),
  };
  await writeFileAtomic(join(outDir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`, 0o644);
  return built(true);
}

async function isCurrent(image: BuiltImage, inputHash: string): Promise<boolean> {
  const manifest = await readIfThere(image.manifestPath);
  if (manifest === undefined || !manifest.includes(`"inputHash": "${inputHash}"`)) return false;
  for (const path of [image.imagePath, image.kernelPath, image.initrdPath]) if (!(await isFile(path))) return false;
  return true;
}
