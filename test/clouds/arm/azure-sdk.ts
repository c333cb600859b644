import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Dialect } from "./body.ts";
import { ArmModel, type ServiceDescription } from "./model.ts";

/** Pinned, so that a new release cannot change what a test run means. */
const PACKAGES = ["azure-mgmt-compute==39.0.0", "azure-mgmt-network==33.1.0", "azure-identity==1.27.0"] as const;
const NAME = `azure-${PACKAGES.map((p) => p.split("==")[1]).join("-")}`;
const GROUPS: Readonly<Record<Dialect, readonly string[]>> = {
  compute: [
    ...["VirtualMachines", "Disks", "Images", "Galleries", "GalleryImages", "GalleryImageVersions"],
    ...["CommunityGalleries", "CommunityGalleryImages", "CommunityGalleryImageVersions", "VirtualMachineImages"],
    ...["ResourceSkus", "Usage"],
  ],
  network: [
    ...["VirtualNetworks", "Subnets", "NetworkSecurityGroups", "SecurityRules", "NetworkInterfaces"],
    ...["PublicIPAddresses", "Usages"],
  ],
};

/** Azure's Python SDK, outside of Python's own directories. */
export interface AzureSdk {
  /** For PYTHONPATH. */
  readonly path: string;
  readonly model: ArmModel;
}

/** Why there is none; tests say it in their skip line. */
export interface NoAzureSdk {
  readonly missing: string;
}

/**
 * Azure's Python SDK and what it says about Compute and Network, from PyPI into the repository's cache directory (which is
 * not committed). Installed once; later runs need no network.
 */
export async function installAzureSdk(): Promise<AzureSdk | NoAzureSdk> {
  const cache = join(import.meta.dirname, "..", "..", "..", ".cache", "pypi");
  const path = join(cache, NAME);
  const there = await load(path);
  if (there !== undefined) return there;
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, "installing-"));
  const target = join(temporary, "site");
  try {
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target];
    await promisify(execFile)("python3", [...pip, ...PACKAGES], { timeout: 240_000 });
    await rename(target, path).catch((e: NodeJS.ErrnoException) => {
      if (!["ENOTEMPTY", "EEXIST"].includes(e.code ?? "")) throw e; // another test file was faster
    });
    return (await load(path)) ?? { missing: `${PACKAGES.join(", ")} hold no azure.mgmt` };
  } catch (e) {
    const lines = (e instanceof Error ? e.message : String(e)).trim().split("\n");
    return { missing: `${PACKAGES.join(", ")} cannot be installed with pip: ${lines.at(-1)}` };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function load(path: string): Promise<AzureSdk | undefined> {
  const found = await readFile(join(path, "azure", "mgmt", "compute", "_version.py")).catch(
    (e: NodeJS.ErrnoException) => {
      if (e.code === "ENOENT") return undefined;
      throw e;
    },
  );
  if (found === undefined) return undefined;
  const [compute, network] = await Promise.all([describe(path, "compute"), describe(path, "network")]);
  return { path, model: new ArmModel({ compute, network }) };
}

/** Kept beside the packages, by what made it. */
async function describe(path: string, service: Dialect): Promise<ServiceDescription> {
  const script = join(import.meta.dirname, "describe.py");
  const source = await readFile(script, "utf8");
  const made = JSON.stringify([source.length, GROUPS[service]]);
  const kept = join(path, `described-${service}.json`);
  const old = await readFile(kept, "utf8").catch(() => ""); // not made yet
  const [by, text] = [old.slice(0, old.indexOf("\n")), old.slice(old.indexOf("\n") + 1)];
  if (old !== "" && by === made) return JSON.parse(text) as ServiceDescription;
  const { stdout } = await promisify(execFile)(
    "python3",
    [script, join(path, "azure", "mgmt", service), ...GROUPS[service]],
    { maxBuffer: 64 << 20, timeout: 120_000 },
  );
  const temporary = `${kept}.${process.pid}`;
  await writeFile(temporary, `${made}\n${stdout}`);
  await rename(temporary, kept);
  return JSON.parse(stdout) as ServiceDescription;
}
