import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { readIfThere, writeFileAtomic } from "../base/files.ts";
import { VERSION } from "../base/version.ts";
import { INITRD_MODULES, initScript, KERNEL_PARAMS, LEASE_SCRIPT, NETWORK_SCRIPT } from "./boot-scripts.ts";
import { type CpioEntry, characterDevice, cpioArchive, directory, file } from "./cpio.ts";
import { makeDisk } from "./disk.ts";
import { type DebianPackage, fetchPackages, resolvePackages } from "./packages.ts";
import { kernelVersion, makeRootTree, modulesInOrder, recipe } from "./root-tree.ts";

export interface ImageOptions {
  /** Where the image goes: kernel, initrd, disk, manifest.json. */
  readonly outDir: string;
  /** Packages and unpacked trees, kept for the next build. */
  readonly cacheDir: string;
  /** esbuild's output of src/cmd/guest.ts: guest.mjs and the chunks that it loads when it needs them. */
  readonly guestBundleDir: string;
  /** Node's name; default: this machine's. */
  readonly arch?: string;
  /** Node binary for the guest; default: the pinned npm package, else the one that runs this. */
  readonly nodePath?: string;
  /** koffi's native module; default: the installed npm package's. */
  readonly koffiPath?: string;
  /** Told when a step starts, in a few words. */
  readonly onProgress?: (step: string) => void;
}

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

/**
 * Builds the pod VM image with plain tools, or leaves it when nothing that goes into it has changed. Two builds into one
 * directory at a time are harmless: each replaces whole files, the manifest last.
 * @throws Fault failed_precondition (not root, koffi not installed), unavailable (no apt, no network), invalid_argument
 */
export async function buildImage(options: ImageOptions, call: Call): Promise<BuiltImage> {
  const progress = options.onProgress ?? (() => undefined);
  const outDir = resolve(options.outDir);
  const cacheDir = resolve(options.cacheDir);
  const arch = options.arch ?? process.arch;
  if (arch !== process.arch) {
    throw new Fault(
      "unimplemented",
      `an image for ${arch} is built on a machine of that architecture, this one is ${process.arch}`,
    );
  }
  const nodePath = options.nodePath ?? (await pinnedNode(arch)) ?? process.execPath;
  const koffiPath = options.koffiPath ?? koffiBinary(arch);
  await mkdir(cacheDir, { recursive: true });
  await mkdir(outDir, { recursive: true });

  progress("resolving Debian packages");
  const packages = await resolvePackages(arch, cacheDir, call);
  const nodeSha256 = await sha256File(nodePath);
  const treeHash = hashOf([packages, nodeSha256, await sha256File(koffiPath), NETWORK_SCRIPT, LEASE_SCRIPT, recipe()]);
  const bundleSha256 = await sha256Directory(options.guestBundleDir);
  const inputHash = hashOf([
    treeHash,
    bundleSha256,
    initScript([]),
    INITRD_MODULES,
    KERNEL_PARAMS,
    String(makeDisk),
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

  const tree = join(cacheDir, `root-${treeHash.slice(0, 16)}`);
  if (!(await isDirectory(tree))) {
    progress(`downloading ${packages.length} packages`);
    const debs = await fetchPackages(packages, join(cacheDir, "packages"), call);
    progress("unpacking packages");
    await makeRootTree({ debs, nodePath, koffiPath }, tree, call);
    await forgetOthers(cacheDir, basename(tree));
  }
  progress("writing the disk");
  const work = await mkdtemp(join(outDir, ".build-"));
  try {
    const version = await kernelVersion(tree);
    await copyFile(join(tree, "boot", `vmlinuz-${version}`), join(work, FILES.kernel));
    await writeFile(join(work, FILES.initrd), await makeInitrd(tree, version));
    await makeDisk({ tree, guestBundleDir: options.guestBundleDir, target: join(work, FILES.disk) }, call);
    for (const name of Object.values(FILES)) await rename(join(work, name), join(outDir, name));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const manifest = {
    version: VERSION,
    arch,
    kernel: { file: FILES.kernel },
    initrd: { file: FILES.initrd },
    disk: { file: FILES.disk },
    kernelParams: KERNEL_PARAMS,
    inputHash,
    node: { sha256: nodeSha256 },
    guestBundle: { sha256: bundleSha256 },
    packages: packages.map((p: DebianPackage) => `${p.name}=${p.version}`),
  };
  await writeFileAtomic(join(outDir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`, 0o644);
  return built(true);
}

async function makeInitrd(tree: string, version: string): Promise<Uint8Array> {
  const modules = await modulesInOrder(tree, version, INITRD_MODULES);
  const folders = ["bin", "dev", "modules", "proc", "root", "sys"].map(directory);
  const entries: CpioEntry[] = [
    ...folders,
    characterDevice("dev/null", 1, 3), // for the shell, once the real /dev has moved to the new root
    file("bin/busybox", await readFile(join(tree, "bin/busybox")), 0o755),
    file("init", initScript(modules.map((m) => basename(m))), 0o755),
  ];
  for (const module of modules) {
    entries.push(file(`modules/${basename(module)}`, await readFile(join(tree, "lib/modules", version, module))));
  }
  return cpioArchive(entries);
}

async function isCurrent(image: BuiltImage, inputHash: string): Promise<boolean> {
  const manifest = await readIfThere(image.manifestPath);
  if (manifest === undefined || !manifest.includes(`"inputHash": "${inputHash}"`)) return false;
  for (const path of [image.imagePath, image.kernelPath, image.initrdPath]) if (!(await isFile(path))) return false;
  return true;
}

/** The Node that package.json pins, as an npm package without an install script. */
async function pinnedNode(arch: string): Promise<string | undefined> {
  const manifest = resolveModule(`node-linux-${arch}/package.json`);
  if (manifest === undefined) return undefined;
  const path = join(dirname(manifest), "bin/node");
  return (await isFile(path)) ? path : undefined;
}

function koffiBinary(arch: string): string {
  const manifest = resolveModule(`@koromix/koffi-linux-${arch}/package.json`);
  if (manifest === undefined) {
    throw new Fault(
      "failed_precondition",
      `the npm package @koromix/koffi-linux-${arch} is not installed: run npm install`,
    );
  }
  return join(dirname(manifest), `linux_${arch}`, "koffi.node");
}

function resolveModule(specifier: string): string | undefined {
  try {
    return createRequire(import.meta.url).resolve(specifier);
  } catch {
    return undefined; // an optional dependency that is not installed; the caller says what that means
  }
}

async function forgetOthers(cacheDir: string, keep: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (/^root-[0-9a-f]{16}$/.test(name) && name !== keep)
      await rm(join(cacheDir, name), { recursive: true, force: true });
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Of names and content of all files below. */
async function sha256Directory(path: string): Promise<string> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));
  return hashOf(await Promise.all(files.sort().map(async (f) => [relative(path, f), await sha256File(f)])));
}

function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}
