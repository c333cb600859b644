import { open, readFile } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type FatFile, fat32Volume } from "./fat32.ts";
import { GPT_TAIL_SECTORS, PARTITION_TYPE, type Partition, partitionTable, SECTOR } from "./gpt.ts";
import { guidFrom } from "./guid.ts";
import { copyInto } from "./sparse-file.ts";

export interface BootDiskInput {
  /** Node's name. */
  readonly arch: string;
  /** What firmware starts. */
  readonly unifiedKernelPath: string;
  /** An ext4 file system of whole MiB. */
  readonly rootPath: string;
  readonly rootMiB: number;
  /** Identifiers follow from it: the same for the same content, so that a build can be repeated. */
  readonly identity: string;
  readonly target: string;
}

const MIB_SECTORS = (1 << 20) / SECTOR;
/** FAT32 needs 65525 clusters; firmware that was made for disks with larger sectors does too. */
const ESP_MIB = 48;
/** Before the first partition: the table, and what makes partitions start at whole MiB. */
const HEAD_MIB = 1;
/** Behind the last one: the second table. */
const TAIL_MIB = 1;
const ESP_LABEL = "KATA-REMOTE";

/** Where firmware looks on a disk that it has no boot entry for. Source: UEFI specification 3.5.1.1. */
const ARCHITECTURES: Readonly<Record<string, { readonly program: string; readonly rootType: string }>> = {
  x64: { program: "EFI/BOOT/BOOTX64.EFI", rootType: PARTITION_TYPE.linuxRootX64 },
  arm64: { program: "EFI/BOOT/BOOTAA64.EFI", rootType: PARTITION_TYPE.linuxRootArm64 },
};

/** Name of the root partition, by which the initrd finds it: another image's on a second disk has another one. */
export function rootLabel(identity: string): string {
  return `kata-remote-${identity.slice(0, 12)}`;
}

/**
 * Writes a disk that UEFI firmware boots: a GUID partition table, a system partition with the unified kernel image, and
 * behind it the root file system. The root is the last partition, so that it can grow with the disk.
 */
export async function writeBootDisk(input: BootDiskInput, call: Call): Promise<void> {
  const { identity, target, rootMiB } = input;
  const architecture = ARCHITECTURES[input.arch];
  if (architecture === undefined) throw new Fault("invalid_argument", `no disk boots on architecture "${input.arch}"`);
  const esp: Partition = {
    type: PARTITION_TYPE.efiSystem,
    guid: guidFrom("esp", identity),
    name: "EFI system",
    firstSector: HEAD_MIB * MIB_SECTORS,
    sectors: ESP_MIB * MIB_SECTORS,
  };
  const root: Partition = {
    type: architecture.rootType,
    guid: guidFrom("root", identity),
    name: rootLabel(identity),
    firstSector: esp.firstSector + esp.sectors,
    sectors: rootMiB * MIB_SECTORS,
  };
  const diskSectors = root.firstSector + root.sectors + TAIL_MIB * MIB_SECTORS;
  const { head, tail } = partitionTable(guidFrom("disk", identity), diskSectors, [esp, root]);
  const program: FatFile = { path: architecture.program, data: await readFile(input.unifiedKernelPath) };
  const serial = Number.parseInt(guidFrom("fat", identity).slice(0, 8), 16);
  const volume = fat32Volume([program], {
    sectors: esp.sectors,
    label: ESP_LABEL,
    serial,
    hiddenSectors: esp.firstSector,
  });
  await using disk = await open(target, "w");
  await disk.truncate(diskSectors * SECTOR);
  await disk.write(head, 0, head.length, 0);
  await disk.write(volume, 0, volume.length, esp.firstSector * SECTOR);
  await copyInto(disk, root.firstSector * SECTOR, input.rootPath, call);
  await disk.write(tail, 0, tail.length, (diskSectors - GPT_TAIL_SECTORS) * SECTOR);
}
