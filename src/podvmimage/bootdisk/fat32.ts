import { SECTOR } from "./gpt.ts";

/** A file of a FAT32 volume. */
export interface FatFile {
  /** Names of at most 8.3 characters in upper case, separated by slashes. */
  readonly path: string;
  readonly data: Uint8Array;
}

const RESERVED_SECTORS = 32;
const BACKUP_BOOT_SECTOR = 6;
const FATS = 2;
const ROOT_CLUSTER = 2;
const END_OF_CHAIN = 0x0fff_ffff;
const MEDIA = 0xf8;
const ATTRIBUTE = { directory: 0x10, archive: 0x20, volumeLabel: 0x08 } as const;
const ENTRY_BYTES = 32;
/** Fewer clusters would make it FAT16, whatever the volume says of itself. */
const MIN_CLUSTERS = 65_525;
/** 2026-01-01. Days, months and years since 1980; the time of day is 0. */
const DATE = ((2026 - 1980) << 9) | (1 << 5) | 1;

/**
 * The used part, from its first sector on, of a FAT32 volume with clusters of one sector; what is behind it is zero.
 * Equal input gives equal bytes.
 * @param sectors the volume's size
 * @throws RangeError when the files need more
 * Source: Microsoft, "FAT32 File System Specification" 1.03.
 */
export function fat32Volume(
  files: readonly FatFile[],
  options: {
    readonly sectors: number;
    readonly label: string;
    readonly serial: number;
    readonly hiddenSectors: number;
  },
): Buffer {
  const fatSectors = Math.ceil(((options.sectors - RESERVED_SECTORS + 2) * 4) / SECTOR);
  const dataSector = RESERVED_SECTORS + FATS * fatSectors;
  const clusters = options.sectors - dataSector;
  if (clusters < MIN_CLUSTERS) throw new RangeError(`a FAT32 volume of ${options.sectors} sectors is too small`);

  const fat: number[] = [0x0fff_ff00 | MEDIA, END_OF_CHAIN];
  const content: Buffer[] = [];
  /** Puts data behind what is there. @returns its first cluster, 0 for no data */
  const store = (data: Uint8Array): number => {
    const first = fat.length;
    const count = Math.ceil(data.length / SECTOR);
    for (let i = 1; i <= count; i += 1) fat.push(i === count ? END_OF_CHAIN : first + i);
    const padded = Buffer.alloc(count * SECTOR);
    padded.set(data);
    content.push(padded);
    return count === 0 ? 0 : first;
  };

  const root = tree(files);
  reserve(root, store, { label: options.label, isRoot: true });
  fillDirectories(root, content, 0);
  const used = fat.length - 2;
  if (used > clusters) throw new RangeError(`the files need ${used} sectors, the FAT32 volume has ${clusters}`);

  const volume = Buffer.alloc((dataSector + used) * SECTOR);
  const boot = bootSector(options, fatSectors);
  const info = infoSector(clusters - used, fat.length);
  for (const at of [0, BACKUP_BOOT_SECTOR]) {
    boot.copy(volume, at * SECTOR);
    info.copy(volume, (at + 1) * SECTOR);
  }
  for (let copy = 0; copy < FATS; copy += 1) {
    const start = (RESERVED_SECTORS + copy * fatSectors) * SECTOR;
    fat.forEach((value, index) => {
      volume.writeUInt32LE(value >>> 0, start + index * 4);
    });
  }
  Buffer.concat(content).copy(volume, dataSector * SECTOR);
  return volume;
}

interface Directory {
  readonly entries: Map<string, Directory | Uint8Array>;
  cluster: number;
  readonly clusters: Map<string, number>;
  label: string;
}

function emptyDirectory(): Directory {
  return { entries: new Map(), clusters: new Map(), cluster: 0, label: "" };
}

function tree(files: readonly FatFile[]): Directory {
  const root = emptyDirectory();
  for (const { path, data } of files) {
    const parts = path.split("/");
    const name = parts.pop() ?? "";
    let at = root;
    for (const part of parts) {
      const there = at.entries.get(part);
      if (there instanceof Uint8Array) throw new RangeError(`${path}: ${part} is a file`);
      const next = there ?? emptyDirectory();
      at.entries.set(part, next);
      at = next;
    }
    at.entries.set(name, data);
  }
  return root;
}

/** Gives every directory and file its clusters; directories come first, so that the root has cluster 2. */
function reserve(
  directory: Directory,
  store: (data: Uint8Array) => number,
  root: { readonly label: string; readonly isRoot: boolean },
): void {
  directory.label = root.isRoot ? root.label : "";
  const fixed = root.isRoot ? 1 : 2; // the label; or the directory itself and its parent
  directory.cluster = store(new Uint8Array((directory.entries.size + fixed) * ENTRY_BYTES));
  for (const [name, entry] of directory.entries) {
    if (entry instanceof Uint8Array) directory.clusters.set(name, store(entry));
    else reserve(entry, store, { label: "", isRoot: false });
  }
}

/** Writes the entries, now that all clusters are known. */
function fillDirectories(directory: Directory, content: readonly Buffer[], parentCluster: number): void {
  const records: Buffer[] = [];
  if (directory.label !== "") records.push(record(directory.label.padEnd(11), ATTRIBUTE.volumeLabel, 0, 0));
  else {
    records.push(record(".".padEnd(11), ATTRIBUTE.directory, directory.cluster, 0));
    // Of a directory below the root the parent is written as 0.
    const parent = parentCluster === ROOT_CLUSTER ? 0 : parentCluster;
    records.push(record("..".padEnd(11), ATTRIBUTE.directory, parent, 0));
  }
  for (const [name, entry] of directory.entries) {
    const short = shortName(name);
    if (entry instanceof Uint8Array) {
      records.push(record(short, ATTRIBUTE.archive, directory.clusters.get(name) ?? 0, entry.length));
    } else {
      records.push(record(short, ATTRIBUTE.directory, entry.cluster, 0));
      fillDirectories(entry, content, directory.cluster);
    }
  }
  const target = blockAt(content, directory.cluster);
  Buffer.concat(records).copy(target);
}

/** The stored block that starts at a cluster. */
function blockAt(content: readonly Buffer[], cluster: number): Buffer {
  let at = ROOT_CLUSTER;
  for (const block of content) {
    if (at === cluster && block.length > 0) return block;
    at += block.length / SECTOR;
  }
  throw new RangeError(`no block starts at cluster ${cluster}`);
}

function record(name: string, attribute: number, cluster: number, size: number): Buffer {
  const entry = Buffer.alloc(ENTRY_BYTES);
  entry.write(name, 0, "latin1");
  entry.writeUInt8(attribute, 11);
  entry.writeUInt16LE(DATE, 16);
  entry.writeUInt16LE(DATE, 18);
  entry.writeUInt16LE(cluster >>> 16, 20);
  entry.writeUInt16LE(DATE, 24);
  entry.writeUInt16LE(cluster & 0xffff, 26);
  entry.writeUInt32LE(size, 28);
  return entry;
}

function shortName(name: string): string {
  const found = /^([A-Z0-9_-]{1,8})(?:\.([A-Z0-9_-]{1,3}))?$/.exec(name);
  if (found === null) throw new RangeError(`"${name}" is no name of a FAT file: 8.3 characters in upper case are`);
  return (found[1] ?? "").padEnd(8) + (found[2] ?? "").padEnd(3);
}

function bootSector(
  o: { readonly sectors: number; readonly label: string; readonly serial: number; readonly hiddenSectors: number },
  fatSectors: number,
): Buffer {
  const sector = Buffer.alloc(SECTOR);
  sector.set([0xeb, 0x58, 0x90]);
  sector.write("MSWIN4.1", 3, "latin1"); // some drivers insist on it
  sector.writeUInt16LE(SECTOR, 11);
  sector.writeUInt8(1, 13); // sectors per cluster
  sector.writeUInt16LE(RESERVED_SECTORS, 14);
  sector.writeUInt8(FATS, 16);
  sector.writeUInt8(MEDIA, 21);
  sector.writeUInt16LE(63, 24); // geometry, for nobody
  sector.writeUInt16LE(255, 26);
  sector.writeUInt32LE(o.hiddenSectors, 28);
  sector.writeUInt32LE(o.sectors, 32);
  sector.writeUInt32LE(fatSectors, 36);
  sector.writeUInt32LE(ROOT_CLUSTER, 44);
  sector.writeUInt16LE(1, 48); // the sector of infoSector
  sector.writeUInt16LE(BACKUP_BOOT_SECTOR, 50);
  sector.writeUInt8(0x80, 64);
  sector.writeUInt8(0x29, 66);
  sector.writeUInt32LE(o.serial, 67);
  sector.write(o.label.padEnd(11), 71, "latin1");
  sector.write("FAT32   ", 82, "latin1");
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

function infoSector(freeClusters: number, nextFree: number): Buffer {
  const sector = Buffer.alloc(SECTOR);
  sector.writeUInt32LE(0x41615252, 0);
  sector.writeUInt32LE(0x61417272, 484);
  sector.writeUInt32LE(freeClusters, 488);
  sector.writeUInt32LE(nextFree, 492);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
