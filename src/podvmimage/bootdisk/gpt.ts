import { crc32 } from "node:zlib";
import { type Guid, guidBytes } from "./guid.ts";

export const SECTOR = 512;

/** What a partition is for. Source: UEFI specification 5.3.3; the Discoverable Partitions Specification. */
export const PARTITION_TYPE = {
  efiSystem: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
  linuxRootX64: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
  linuxRootArm64: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
} as const;

export interface Partition {
  readonly type: Guid;
  readonly guid: Guid;
  /** At most 36 UTF-16 code units. Linux shows it as PARTNAME. */
  readonly name: string;
  readonly firstSector: number;
  readonly sectors: number;
}

const ENTRIES = 128;
const ENTRY_BYTES = 128;
const ENTRY_SECTORS = (ENTRIES * ENTRY_BYTES) / SECTOR;
const HEADER_BYTES = 92;
const REVISION = 0x10000;
const NAME_UNITS = 36;

/** Sectors at the end of the disk that no partition may use: the second table. */
export const GPT_TAIL_SECTORS = ENTRY_SECTORS + 1;
/** Sectors at the beginning: protective MBR, header, table. */
export const GPT_HEAD_SECTORS = GPT_TAIL_SECTORS + 1;

/**
 * Both ends of a disk with a GUID partition table: the protective MBR with the first table, and the second table.
 * Source: UEFI specification 5.2.3 and 5.3.
 */
export function partitionTable(
  diskGuid: Guid,
  diskSectors: number,
  partitions: readonly Partition[],
): { readonly head: Buffer; readonly tail: Buffer } {
  const entries = Buffer.alloc(ENTRIES * ENTRY_BYTES);
  partitions.forEach((partition, index) => {
    writeEntry(entries.subarray(index * ENTRY_BYTES, (index + 1) * ENTRY_BYTES), partition);
  });
  const last = diskSectors - 1;
  const shared = { diskGuid, diskSectors, entriesCrc: crc32(entries) };
  const first = header({ ...shared, own: 1, other: last, entriesSector: 2 });
  const second = header({ ...shared, own: last, other: 1, entriesSector: last - ENTRY_SECTORS });
  return {
    head: Buffer.concat([protectiveMbr(diskSectors), first, entries]),
    tail: Buffer.concat([entries, second]),
  };
}

function writeEntry(entry: Buffer, { type, guid, name, firstSector, sectors }: Partition): void {
  if (name.length > NAME_UNITS)
    throw new RangeError(`partition name "${name}" is longer than ${NAME_UNITS} characters`);
  guidBytes(type).copy(entry, 0);
  guidBytes(guid).copy(entry, 16);
  entry.writeBigUInt64LE(BigInt(firstSector), 32);
  entry.writeBigUInt64LE(BigInt(firstSector + sectors - 1), 40);
  entry.write(name, 56, "utf16le");
}

function header(h: {
  readonly diskGuid: Guid;
  readonly diskSectors: number;
  readonly entriesCrc: number;
  readonly own: number;
  readonly other: number;
  readonly entriesSector: number;
}): Buffer {
  const sector = Buffer.alloc(SECTOR);
  sector.write("EFI PART", 0, "latin1");
  sector.writeUInt32LE(REVISION, 8);
  sector.writeUInt32LE(HEADER_BYTES, 12);
  sector.writeBigUInt64LE(BigInt(h.own), 24);
  sector.writeBigUInt64LE(BigInt(h.other), 32);
  sector.writeBigUInt64LE(BigInt(GPT_HEAD_SECTORS), 40);
  sector.writeBigUInt64LE(BigInt(h.diskSectors - GPT_TAIL_SECTORS - 1), 48);
  guidBytes(h.diskGuid).copy(sector, 56);
  sector.writeBigUInt64LE(BigInt(h.entriesSector), 72);
  sector.writeUInt32LE(ENTRIES, 80);
  sector.writeUInt32LE(ENTRY_BYTES, 84);
  sector.writeUInt32LE(h.entriesCrc, 88);
  sector.writeUInt32LE(crc32(sector.subarray(0, HEADER_BYTES)), 16);
  return sector;
}

/** One partition over everything, of a type that old programs leave alone. */
function protectiveMbr(diskSectors: number): Buffer {
  const sector = Buffer.alloc(SECTOR);
  const entry = sector.subarray(446, 462);
  entry.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
  entry.writeUInt32LE(1, 8);
  entry.writeUInt32LE(Math.min(diskSectors - 1, 0xffff_ffff), 12);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
