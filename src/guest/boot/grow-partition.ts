import { closeSync, existsSync, openSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import type { GuestLog } from "../system/guest-log.ts";
import { addressOf, libc } from "../system/libc.ts";

/** Source: linux/fs.h, _IO(0x12, 105); linux/blkpg.h. */
const BLKPG = 0x1269;
const BLKPG_RESIZE_PARTITION = 3;
const SECTOR = 512;
const MIB_SECTORS = (1 << 20) / SECTOR;
/** At the end of a disk with a GUID partition table: the second table. */
const GPT_TAIL_SECTORS = 33;

/** Where a partition is, in sectors. */
export interface PartitionPlace {
  /** Device name of its disk: "nvme0n1". */
  readonly disk: string;
  readonly number: number;
  readonly start: number;
  readonly size: number;
  /** What it may have: up to the disk's end, in whole MiB. The same as `size` when another partition is behind it. */
  readonly possible: number;
}

/**
 * Makes the partition that holds `path` as large as its disk allows, in the kernel's eyes only: the table on the disk
 * stays as it is, since a pod VM does not start a second time. The file system is grown afterwards.
 */
export function growPartition(path: string, log: GuestLog): void {
  try {
    const place = partitionOf(statSync(path).dev);
    if (place === undefined || place.possible <= place.size) return;
    resize(place);
  } catch (e) {
    // The pod can run on what there is; the reason is worth a line.
    log.warn("partition could not be grown", { err: (e as Error).message });
  }
}

/** @returns undefined when the device is a whole disk, or none */
export function partitionOf(dev: number, sys = "/sys"): PartitionPlace | undefined {
  // As glibc packs them: 12 bits of the major number, 20 of the minor.
  const [major, minor] = [(dev >>> 8) & 0xfff, (dev & 0xff) | ((dev >>> 12) & 0xfff00)];
  const link = `${sys}/dev/block/${major}:${minor}`;
  if (!existsSync(`${link}/partition`)) return undefined;
  const directory = realpathSync(link);
  const disk = dirname(directory);
  const number = (at: string): number => Number(readFileSync(at, "utf8"));
  const [start, size] = [number(`${directory}/start`), number(`${directory}/size`)];
  const others = readdirSync(disk).filter((name) => existsSync(`${disk}/${name}/partition`));
  const isLast = others.every((name) => number(`${disk}/${name}/start`) <= start);
  const end = Math.floor((number(`${disk}/size`) - GPT_TAIL_SECTORS) / MIB_SECTORS) * MIB_SECTORS;
  return {
    disk: basename(disk),
    number: number(`${directory}/partition`),
    start,
    size,
    possible: isLast ? Math.max(size, end - start) : size,
  };
}

function resize({ disk, number, start, possible }: PartitionPlace): void {
  const partition = Buffer.alloc(152); // struct blkpg_partition: start and length in bytes, number, two names
  partition.writeBigInt64LE(BigInt(start) * BigInt(SECTOR), 0);
  partition.writeBigInt64LE(BigInt(possible) * BigInt(SECTOR), 8);
  partition.writeInt32LE(number, 16);
  const argument = Buffer.alloc(24); // struct blkpg_ioctl_arg: op, flags, length, pointer
  argument.writeInt32LE(BLKPG_RESIZE_PARTITION, 0);
  argument.writeInt32LE(partition.length, 8);
  argument.writeBigUInt64LE(addressOf(partition), 16);
  const fd = openSync(`/dev/${disk}`, "r");
  try {
    libc("int ioctl(int fd, unsigned long request, ...)", fd, BLKPG, "void *", argument);
  } finally {
    closeSync(fd);
  }
}
