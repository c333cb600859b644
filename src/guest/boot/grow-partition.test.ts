import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { partitionOf } from "./grow-partition.ts";

const home = mkdtempSync(join(tmpdir(), "sys-"));
after(() => rmSync(home, { recursive: true }));
const MIB = 2048;

/** A /sys with one disk; partitions by number, with start and size in MiB. */
function sys(diskMiB: number, partitions: Readonly<Record<number, readonly [number, number]>>): string {
  const root = mkdtempSync(join(home, "x"));
  const disk = join(root, "devices/pci/nvme0n1");
  mkdirSync(join(root, "dev/block"), { recursive: true });
  mkdirSync(join(disk, "queue"), { recursive: true });
  writeFileSync(join(disk, "size"), `${diskMiB * MIB}\n`);
  symlinkSync(disk, join(root, "dev/block/259:0"));
  for (const [number, [start, size]] of Object.entries(partitions)) {
    const directory = join(disk, `nvme0n1p${number}`);
    mkdirSync(directory);
    writeFileSync(join(directory, "partition"), `${number}\n`);
    writeFileSync(join(directory, "start"), `${start * MIB}\n`);
    writeFileSync(join(directory, "size"), `${size * MIB}\n`);
    symlinkSync(directory, join(root, `dev/block/259:${number}`));
  }
  return root;
}

/** As stat(2) packs them. */
function device(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

describe("the partition of a device", () => {
  it("may have what is free behind it, up to the second partition table", () => {
    const place = partitionOf(device(259, 2), sys(10_240, { 1: [1, 48], 2: [49, 974] }));
    assert.deepEqual(place, {
      ...{ disk: "nvme0n1", number: 2, start: 49 * MIB, size: 974 * MIB },
      possible: (10_239 - 49) * MIB,
    });
  });

  it("keeps its size on a disk of the image's size, and one that is too small to have grown", () => {
    const place = partitionOf(device(259, 2), sys(1024, { 1: [1, 48], 2: [49, 974] }));
    assert.equal(place?.possible, place?.size);
  });

  it("keeps its size when another one is behind it", () => {
    const place = partitionOf(device(259, 2), sys(10_240, { 1: [1, 48], 2: [49, 974], 3: [1100, 10] }));
    assert.equal(place?.possible, 974 * MIB);
  });

  it("is none when the file system has the whole disk, or no disk at all", () => {
    const root = sys(10_240, { 1: [1, 48] });
    assert.equal(partitionOf(device(259, 0), root), undefined);
    assert.equal(partitionOf(device(0, 38), root), undefined);
  });

  it("is found by minor numbers of more than eight bits", () => {
    const root = sys(10_240, { 300: [1, 48] });
    assert.equal(partitionOf(device(259, 300), root)?.number, 300);
  });
});
