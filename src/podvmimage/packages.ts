import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";

/** A Debian package as apt chose it. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly arch: string;
}

/** What the guest needs beside its kernel; their dependencies follow. */
const WANTED = ["busybox-static", "crun", "e2fsprogs", "iproute2", "libstdc++6", "tar"];
const BOOT_STUB = "systemd-boot-efi";

/** Node's names of architectures and what the Debian ones and their kernels are called. */
const DEBIAN: Readonly<Record<string, { readonly arch: string; readonly kernel: string }>> = {
  x64: { arch: "amd64", kernel: "linux-image-cloud-amd64" },
  arm64: { arch: "arm64", kernel: "linux-image-cloud-arm64" },
};

/**
 * Asks apt which packages it would take now: the guest's programs with everything they depend on, and the newest cloud
 * kernel without its dependencies (they would make an initrd of their own). Uses this machine's package sources.
 * @throws Fault unavailable when apt is missing or knows no such package, with the remedy
 */
export async function resolvePackages(arch: string, workDir: string, call: Call): Promise<readonly DebianPackage[]> {
  const debian = DEBIAN[arch];
  if (debian === undefined)
    throw new Fault("invalid_argument", `architecture "${arch}" has no pod VM image: x64 and arm64 have`);
  return await withIndex(call, async () => {
    const programs = await simulate(WANTED, workDir, call);
    const kernel = (await simulate([debian.kernel], workDir, call)).filter((p) => /^linux-image-\d/.test(p.name));
    return [...programs, ...kernel].sort((a, b) => (a.name < b.name ? -1 : 1));
  });
}

/** systemd's EFI stub, which a bootable disk's kernel is put into. @throws Fault like resolvePackages */
export async function resolveBootStub(workDir: string, call: Call): Promise<DebianPackage> {
  const [stub] = await withIndex(call, async () =>
    (await simulate([BOOT_STUB], workDir, call)).filter((p) => p.name === BOOT_STUB),
  );
  if (stub === undefined) throw new Fault("unavailable", `apt has no package ${BOOT_STUB}: is this Debian or Ubuntu?`);
  return stub;
}

/** What apt would install on a machine that has nothing. */
async function simulate(names: readonly string[], workDir: string, call: Call): Promise<readonly DebianPackage[]> {
  const status = join(workDir, "no-packages-installed");
  await writeFile(status, "");
  const options = ["-o", `Dir::State::status=${status}`, "-o", "Debug::NoLocking=1", "--no-install-recommends"];
  const { stdout } = await exec("apt-get", ["-s", ...options, "install", ...names], call, { env: APT_ENV });
  return parseSimulation(stdout);
}

/** Has apt fetch its package lists when it does not know what it is asked for. */
async function withIndex<T>(call: Call, resolve: () => Promise<T>): Promise<T> {
  try {
    return await resolve();
  } catch (e) {
    const fault = Fault.from(e);
    if (!/Unable to locate package|has no installation candidate/.test(fault.message)) throw installHint(fault);
  }
  await exec("apt-get", ["update"], call, { env: APT_ENV });
  return await resolve();
}

/** Downloads what is not in the cache directory yet. @returns the files, in the packages' order */
export async function fetchPackages(
  packages: readonly DebianPackage[],
  cacheDir: string,
  call: Call,
): Promise<readonly string[]> {
  await mkdir(cacheDir, { recursive: true });
  const there = new Set(await readdir(cacheDir));
  const missing = packages.filter((p) => !there.has(fileName(p)));
  if (missing.length > 0) {
    const partial = join(cacheDir, `partial-${process.pid}`);
    await mkdir(partial, { recursive: true });
    try {
      const names = missing.map((p) => `${p.name}=${p.version}`);
      // apt checks sizes and hashes against the signed index.
      await exec("apt-get", ["-q", "download", ...names], call, { cwd: partial, env: APT_ENV });
      for (const name of await readdir(partial)) await rename(join(partial, name), join(cacheDir, name));
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  }
  return packages.map((p) => join(cacheDir, fileName(p)));
}

const APT_ENV: NodeJS.ProcessEnv = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };

/** `Inst crun (1.8.1-1+deb12u1 Debian:12.10/stable [amd64])` */
function parseSimulation(text: string): readonly DebianPackage[] {
  return [...text.matchAll(/^Inst (\S+) \((\S+) .*\[(\w+)\]\)/gm)].map(([, name = "", version = "", arch = ""]) => ({
    name,
    version,
    arch,
  }));
}

/** As apt names a downloaded file: the epoch's colon is escaped. */
function fileName(p: DebianPackage): string {
  return `${p.name}_${p.version.replaceAll(":", "%3a")}_${p.arch}.deb`;
}

function installHint(fault: Fault): Fault {
  if (fault.code !== "unavailable") return fault;
  return new Fault(
    "unavailable",
    `${fault.message}: the pod VM image is built from Debian packages, on Debian or Ubuntu`,
    fault.context,
    {
      cause: fault,
      retryable: false,
    },
  );
}
