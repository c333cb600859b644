import { appendFile, stat } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { vhdFooter } from "./vhd.ts";

/** What a disk is written as: `qcow2` for OpenStack and libvirt, `vhd` for Azure, `raw` for AWS and everything else. */
export type DiskFormat = "raw" | "qcow2" | "vhd";

export const DISK_FORMATS: readonly DiskFormat[] = ["raw", "qcow2", "vhd"];

/**
 * Writes a raw disk in another format; `raw` makes a copy.
 * @param options.dateSeconds of the disk, since 1970
 * @throws Fault unavailable without qemu-img (qcow2 only)
 */
export async function convertDisk(
  source: string,
  format: DiskFormat,
  target: string,
  options: { readonly dateSeconds: number; readonly identity: string },
  call: Call,
): Promise<void> {
  if (format === "qcow2") {
    const args = ["convert", "-q", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", source, target];
    await exec("qemu-img", args, call);
    return;
  }
  await exec("cp", ["--sparse=always", source, target], call);
  if (format === "raw") return;
  const { size } = await stat(source);
  await appendFile(target, vhdFooter(size, options.dateSeconds, options.identity));
}
