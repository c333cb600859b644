import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { blockDisks, isBlank, isVolume } from "../system/block-disks.ts";
import { scratchOf } from "./scratch-disk.ts";

const GIB = 1 << 30;
const SECTORS = GIB / 512;

describe("disks besides the first", () => {
  const home = mkdtempSync(join(tmpdir(), "disks-"));
  after(() => rmSync(home, { recursive: true }));

  /** A /sys with files; a target that begins with "->" is a link. */
  function sysOf(name: string, files: Readonly<Record<string, string | number>>): string {
    const sys = join(home, name);
    for (const [path, content] of Object.entries(files)) {
      const at = join(sys, path);
      mkdirSync(dirname(at), { recursive: true });
      const link = /^->(.*)$/.exec(String(content))?.[1];
      if (link === undefined) writeFileSync(at, `${content}\n`);
      else symlinkSync(join(sys, link), at);
    }
    return sys;
  }
  const dev = (major: number, minor: number): number => (major << 8) | minor;

  it("at EC2 are known by serial numbers; the root's, optical and mapped ones are left out", () => {
    const sys = sysOf("ec2", {
      "block/nvme0n1/size": SECTORS,
      "block/nvme0n1/nvme0n1p2/partition": 2,
      "dev/block/259:2": "->block/nvme0n1/nvme0n1p2",
      "block/nvme1n1/size": 2 * SECTORS,
      "block/nvme1n1/device/serial": "vol0a1b2c3d4e5f60001",
      "block/nvme2n1/size": SECTORS,
      "block/nvme2n1/nvme2n1p1/partition": 1,
      "block/nvme3n1/size": SECTORS,
      "block/nvme3n1/ro": 1,
      "block/sr0/size": SECTORS,
      "block/dm-0/size": SECTORS,
      "block/nvme4n1/size": 0,
    });
    const disks = blockDisks(sys, dev(259, 2));
    assert.deepEqual(
      disks.map(({ name, bytes, taken }) => [name, bytes / GIB, taken]),
      [
        ["nvme1n1", 2, false],
        ["nvme2n1", 1, true],
        ["nvme3n1", 1, true],
      ],
    );
    const [volume] = disks;
    assert.ok(volume !== undefined && isVolume(volume, "vol-0a1b2c3d4e5f60001", 7));
    assert.ok(!isVolume(volume, "vol-0a1b2c3d4e5f60002", 0));
  });

  it("at Azure are known by their LUN: on another SCSI host than the OS disk, or as an NVMe namespace", () => {
    const scsi = sysOf("azure-scsi", {
      "hosts/0:0:0:0/x": "",
      "hosts/0:0:0:1/x": "",
      "hosts/1:0:0:0/x": "",
      "hosts/1:0:0:5/x": "",
      "dev/block/8:2": "->block/sda/sda2",
      "block/sda/sda2/partition": 2,
      "block/sda/size": SECTORS,
      "block/sda/device": "->hosts/0:0:0:0",
      "block/sdb/size": SECTORS,
      "block/sdb/device": "->hosts/0:0:0:1",
      "block/sdc/size": SECTORS,
      "block/sdc/device": "->hosts/1:0:0:0",
      "block/sdd/size": SECTORS,
      "block/sdd/device": "->hosts/1:0:0:5",
    });
    const luns = (sys: string, root: number) => blockDisks(sys, root).map(({ name, lun }) => [name, lun]);
    assert.deepEqual(luns(scsi, dev(8, 2)), [
      ["sdb", undefined],
      ["sdc", 0],
      ["sdd", 5],
    ]);
    const nvme = sysOf("azure-nvme", {
      "block/nvme0n1/size": SECTORS,
      "dev/block/259:0": "->block/nvme0n1",
      "block/nvme0n3/size": SECTORS,
      "block/nvme0n3/nsid": 3,
      "block/nvme0n3/device/model": "MSFT NVMe Accelerator v1.0",
    });
    assert.deepEqual(luns(nvme, dev(259, 0)), [["nvme0n3", 1]]);
  });

  it("the largest empty one is for what the pod writes, and never a volume that outlives the VM", () => {
    const disk = (name: string, gib: number, more: object = {}) => ({
      ...{ name, bytes: gib * GIB, serial: `vol${name}`, lun: undefined, taken: false, ...more },
    });
    const all = [disk("a", 1), disk("b", 9), disk("c", 5), disk("d", 7, { taken: true }), disk("e", 3)];
    const none = { scratch: true, volumes: [] };
    assert.equal(scratchOf(all, none, () => true)?.name, "b");
    assert.equal(scratchOf(all, none, (d) => d.name !== "b")?.name, "c", "b has something on it");
    assert.equal(scratchOf(all, { scratch: true, volumes: ["vol-b", "vol-c"] }, () => true)?.name, "e");
    const azure = [disk("a", 9, { lun: 0 }), disk("b", 5, { lun: 1 }), disk("c", 1, { lun: 2 })];
    assert.equal(scratchOf(azure, { scratch: true, volumes: ["x", "y"] }, () => true)?.name, "c");
    assert.equal(
      scratchOf(all, none, () => false),
      undefined,
    );
  });

  it("are empty when their first and last MiB are zero", () => {
    const path = join(home, "disk");
    const bytes = 5 << 20;
    const content = Buffer.alloc(bytes);
    const holds = (at: number | undefined): boolean => {
      content.fill(0);
      if (at !== undefined) content[at] = 1;
      writeFileSync(path, content);
      return isBlank(path, bytes);
    };
    assert.ok(holds(undefined));
    for (const at of [0, 1080, 65_600, bytes - 1]) assert.ok(!holds(at), `${at}`);
  });
});
