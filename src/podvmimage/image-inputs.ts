import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { LEASE_SCRIPT, NETWORK_SCRIPT } from "./boot-scripts.ts";
import { type DebianPackage, fetchPackages, resolvePackages } from "./packages.ts";
import { makeRootTree, recipe } from "./root-tree.ts";

export interface ImageOptions {
  /** Where the image goes. */
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

/** What an image is made of, known by its hashes before anything is downloaded or unpacked. */
export class ImageInputs {
  readonly arch: string;
  readonly cacheDir: string;
  readonly guestBundleDir: string;
  readonly packages: readonly DebianPackage[];
  readonly nodeSha256: string;
  readonly bundleSha256: string;
  /** Of all that goes into the root file system but our own bundle. */
  readonly treeHash: string;
  readonly #nodePath: string;
  readonly #koffiPath: string;
  readonly #progress: (step: string) => void;

  private constructor(parts: {
    readonly options: ImageOptions;
    readonly arch: string;
    readonly packages: readonly DebianPackage[];
    readonly nodePath: string;
    readonly koffiPath: string;
    readonly hashes: { readonly node: string; readonly koffi: string; readonly bundle: string };
  }) {
    const { options, packages, hashes } = parts;
    this.arch = parts.arch;
    this.cacheDir = resolve(options.cacheDir);
    this.guestBundleDir = options.guestBundleDir;
    this.packages = packages;
    this.nodeSha256 = hashes.node;
    this.bundleSha256 = hashes.bundle;
    this.treeHash = hashOf([packages, hashes.node, hashes.koffi, NETWORK_SCRIPT, LEASE_SCRIPT, recipe()]);
    this.#nodePath = parts.nodePath;
    this.#koffiPath = parts.koffiPath;
    this.#progress = options.onProgress ?? (() => undefined);
  }

  /** @throws Fault failed_precondition (koffi not installed), unavailable (no apt, no network), unimplemented */
  static async resolve(options: ImageOptions, call: Call): Promise<ImageInputs> {
    const arch = options.arch ?? process.arch;
    if (arch !== process.arch) {
      throw new Fault(
        "unimplemented",
        `an image for ${arch} is built on a machine of that architecture, this one is ${process.arch}`,
      );
    }
    const nodePath = options.nodePath ?? (await pinnedNode(arch)) ?? process.execPath;
    const koffiPath = options.koffiPath ?? koffiBinary(arch);
    await mkdir(options.cacheDir, { recursive: true });
    await mkdir(options.outDir, { recursive: true });
    options.onProgress?.("resolving Debian packages");
    const packages = await resolvePackages(arch, resolve(options.cacheDir), call);
    const hashes = {
      node: await sha256File(nodePath),
      koffi: await sha256File(koffiPath),
      bundle: await sha256Directory(options.guestBundleDir),
    };
    return new ImageInputs({ options, arch, packages, nodePath, koffiPath, hashes });
  }

  /** The root file system without our bundle, unpacked into the cache unless it is there. */
  async tree(call: Call): Promise<string> {
    const tree = join(this.cacheDir, `root-${this.treeHash.slice(0, 16)}`);
    if (await isDirectory(tree)) return tree;
    this.#progress(`downloading ${this.packages.length} packages`);
    const debs = await this.fetch(this.packages, call);
    this.#progress("unpacking packages");
    await makeRootTree({ debs, nodePath: this.#nodePath, koffiPath: this.#koffiPath }, tree, call);
    await forgetOthers(this.cacheDir, basename(tree));
    return tree;
  }

  /** Files of packages. */
  async fetch(packages: readonly DebianPackage[], call: Call): Promise<readonly string[]> {
    return await fetchPackages(packages, join(this.cacheDir, "packages"), call);
  }
}

/** SHA-256 of a value's JSON. */
export function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

export async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
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
