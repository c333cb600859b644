import { rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import type { VmmSpec } from "../vmm.ts";
import type { VmFiles } from "./layout.ts";

const GIB = 1024 ** 3;

/** Makes the overlay that the VM writes to. @returns the disk's size as the guest sees it, bytes */
export async function createOverlay(spec: VmmSpec, files: VmFiles, call: Call): Promise<number> {
  const imageBytes = (await stat(spec.imagePath)).size;
  const sizeBytes = Math.max(imageBytes, (spec.diskGiB ?? 0) * GIB);
  const args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", spec.imagePath, files.overlay, String(sizeBytes)];
  await exec("qemu-img", args, call).catch((e: unknown) => {
    throw installHint(e, "qemu-utils");
  });
  return sizeBytes;
}

/** Programs that write ISO 9660, the first that is installed is taken. */
const ISO_TOOLS: readonly (readonly [command: string, ...args: string[]])[] = [
  ["genisoimage"],
  ["xorriso", "-as", "mkisofs"],
  ["mkisofs"],
];

/**
 * Makes the NoCloud seed: a volume "cidata" with user-data and meta-data at its root.
 * Source: cloud-init documentation, "NoCloud".
 * @throws Fault unavailable when no program to make it is installed
 */
export async function createSeed(spec: VmmSpec, files: VmFiles, call: Call): Promise<void> {
  const source = join(spec.dir, "seed");
  await mkdirPrivate(source);
  try {
    await writeFile(join(source, "user-data"), spec.userData, { mode: 0o600 });
    await writeFile(join(source, "meta-data"), spec.metaData, { mode: 0o600 });
    for (const [command, ...first] of ISO_TOOLS) {
      const args = [...first, "-quiet", "-output", files.seed, "-volid", "cidata", "-joliet", "-rock", source];
      try {
        await exec(command, args, call);
        return;
      } catch (e) {
        if (!(e instanceof Fault && e.code === "unavailable")) throw e; // unavailable: not installed, try the next
      }
    }
  } finally {
    await rm(source, { recursive: true, force: true });
  }
  throw new Fault(
    "unavailable",
    "neither genisoimage nor xorriso is installed: apt-get install genisoimage",
    {},
    { retryable: false },
  );
}

/** Adds the Debian package to the Fault of a program that isn't installed. */
export function installHint(error: unknown, debianPackage: string): Fault {
  const fault = Fault.from(error);
  if (fault.code !== "unavailable") return fault;
  return new Fault("unavailable", `${fault.message}: apt-get install ${debianPackage}`, fault.context, {
    cause: error,
    retryable: false,
  });
}
