import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { crc32 } from "node:zlib";
import { background } from "../../base/call.ts";
import { rootLabel, writeBootDisk } from "./boot-disk.ts";
import { convertDisk } from "./disk-format.ts";
import { fat32Volume } from "./fat32.ts";
import { PARTITION_TYPE, partitionTable } from "./gpt.ts";
import { guidBytes, guidFrom } from "./guid.ts";
import { vhdFooter } from "./vhd.ts";

const home = mkdtempSync(join(tmpdir(), "bootdisk-"));
after(() => rmSync(home, { recursive: true }));
const onPath = (name: string): boolean =>
  (process.env.PATH ?? "").split(":").some((dir) => existsSync(join(dir, name))) || existsSync(`/sbin/${name}`);

describe("guidFrom", () => {
  it("gives the same GUID for the same names only, of a version for such", () => {
    assert.equal(guidFrom("root", "a"), guidFrom("root", "a"));
    assert.notEqual(guidFrom("root", "a"), guidFrom("roo", "ta"));
    assert.match(guidFrom("root", "a"), /^[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$/);
  });

  it("is written with its first parts turned round", () => {
    // The EFI system partition's type as every disk has it.
    assert.equal(guidBytes(PARTITION_TYPE.efiSystem).toString("hex"), "28732ac11ff8d211ba4b00a0c93ec93b");
  });
});

describe("partitionTable", () => {
  const sectors = 2048 * 64;
  const partition = {
    ...{ type: PARTITION_TYPE.linuxRootX64, guid: guidFrom("root", "x"), name: "kata" },
    ...{ firstSector: 2048, sectors: 2048 * 62 },
  };
  const { head, tail } = partitionTable(guidFrom("disk", "x"), sectors, [partition]);

  it("has a protective MBR over the whole disk", () => {
    assert.equal(head.subarray(446, 462).toString("hex"), "00000200eeffffff01000000ffff0100");
    assert.equal(head.subarray(510, 512).toString("hex"), "55aa");
  });

  it("has two headers that point to each other, with their checksums", () => {
    const first = head.subarray(512, 512 + 92);
    const second = tail.subarray(32 * 512, 32 * 512 + 92);
    for (const [header, own, other, entries] of [
      [first, 1, sectors - 1, 2],
      [second, sectors - 1, 1, sectors - 33],
    ] as const) {
      assert.equal(header.toString("latin1", 0, 8), "EFI PART");
      assert.deepEqual(
        [24, 32, 40, 48, 72].map((at) => Number(header.readBigUInt64LE(at))),
        [own, other, 34, sectors - 34, entries],
      );
      const unsigned = Buffer.from(header);
      unsigned.writeUInt32LE(0, 16);
      assert.equal(header.readUInt32LE(16), crc32(unsigned));
      assert.equal(header.readUInt32LE(88), crc32(head.subarray(1024)));
    }
  });

  it("has the partition's first and last sector and its name", () => {
    const entry = head.subarray(1024, 1024 + 128);
    assert.deepEqual([Number(entry.readBigUInt64LE(32)), Number(entry.readBigUInt64LE(40))], [2048, 2048 * 63 - 1]);
    assert.equal(entry.toString("utf16le", 56, 64), "kata");
    assert.ok(entry.subarray(0, 16).equals(guidBytes(PARTITION_TYPE.linuxRootX64)));
  });

  it("refuses a name that does not fit", () => {
    const long = { ...partition, name: "x".repeat(37) };
    assert.throws(() => partitionTable(guidFrom("disk", "x"), sectors, [long]), /36 characters/);
  });
});

describe("fat32Volume", () => {
  const data = Buffer.from(Array.from({ length: 1500 }, (_, i) => i & 0xff));
  const options = { sectors: 48 * 2048, label: "KATA", serial: 0x1234abcd, hiddenSectors: 2048 };
  const files = [{ path: "EFI/BOOT/BOOTX64.EFI", data }];

  it("says what it is where firmware looks", () => {
    const volume = fat32Volume(files, options);
    assert.equal(volume.toString("latin1", 82, 90), "FAT32   ");
    assert.deepEqual(
      [volume.readUInt16LE(11), volume.readUInt8(13), volume.readUInt32LE(32), volume.readUInt32LE(44)],
      [512, 1, options.sectors, 2],
    );
    assert.ok(volume.subarray(0, 1024).equals(volume.subarray(6 * 512, 6 * 512 + 1024)), "boot sectors' copy");
  });

  it("gives back a file by its directories and its chain of clusters", () => {
    const volume = fat32Volume(files, options);
    assert.ok(readFat(volume, files[0]?.path ?? "").equals(data));
  });

  it("is the same for the same files", () => {
    assert.ok(fat32Volume(files, options).equals(fat32Volume(files, options)));
  });

  it("holds a file of many clusters and an empty one", () => {
    const large = Buffer.alloc(3_000_001, 7);
    const volume = fat32Volume(
      [
        { path: "EFI/A.BIN", data: large },
        { path: "EMPTY", data: Buffer.alloc(0) },
      ],
      options,
    );
    assert.ok(readFat(volume, "EFI/A.BIN").equals(large));
    assert.equal(readFat(volume, "EMPTY").length, 0);
  });

  it("refuses what does not fit, names that are no 8.3 names, and a volume that would be FAT16", () => {
    const refused = (o: Partial<typeof options>, path = "A", bytes = 1): void =>
      assert.throws(() => fat32Volume([{ path, data: Buffer.alloc(bytes) }], { ...options, ...o }), RangeError);
    refused({}, "A", 50 << 20);
    refused({}, "lower.efi");
    refused({}, "TOOLONGNAME.EFI");
    refused({ sectors: 65_000 });
  });

  it("is what mtools reads", { skip: onPath("mcopy") ? false : "mtools is not installed" }, () => {
    const path = join(home, "esp");
    writeFileSync(path, Buffer.concat([fat32Volume(files, options), Buffer.alloc(1 << 20)]));
    const out = execFileSync("mcopy", ["-i", path, "::/EFI/BOOT/BOOTX64.EFI", "-"]);
    assert.ok(out.equals(data));
  });
});

/** A file of a FAT32 volume, read by following its clusters. */
function readFat(volume: Buffer, path: string): Buffer {
  const [reserved, fatSectors] = [volume.readUInt16LE(14), volume.readUInt32LE(36)];
  const start = reserved + 2 * fatSectors;
  const chain = (first: number): Buffer => {
    const parts: Buffer[] = [];
    for (let at = first; at >= 2 && at < 0x0fff_fff8; at = volume.readUInt32LE(reserved * 512 + at * 4)) {
      parts.push(volume.subarray((start + at - 2) * 512, (start + at - 1) * 512));
    }
    return Buffer.concat(parts);
  };
  let content = chain(volume.readUInt32LE(44));
  for (const name of path.split("/")) {
    const [stem = "", extension = ""] = name.split(".");
    const short = stem.padEnd(8) + extension.padEnd(3);
    let found: Buffer | undefined;
    for (let at = 0; at < content.length; at += 32) {
      if (content.toString("latin1", at, at + 11) === short) found = content.subarray(at, at + 32);
    }
    if (found === undefined) throw new Error(`${name} is not there`);
    const directory = (found.readUInt8(11) & 0x10) !== 0;
    content = chain((found.readUInt16LE(20) << 16) | found.readUInt16LE(26));
    if (!directory) content = content.subarray(0, found.readUInt32LE(28));
  }
  return content;
}

describe("vhdFooter", () => {
  it("is the footer that Azure checks", () => {
    const footer = vhdFooter(1 << 30, 1_767_225_600, "x");
    assert.equal(footer.length, 512);
    assert.equal(footer.toString("latin1", 0, 8), "conectix");
    assert.equal(footer.subarray(8, 24).toString("hex"), "0000000200010000ffffffffffffffff");
    assert.equal(footer.readUInt32BE(24), 1_767_225_600 - 946_684_800);
    assert.deepEqual([footer.readBigUInt64BE(40), footer.readBigUInt64BE(48)], [1n << 30n, 1n << 30n]);
    assert.equal(footer.readUInt32BE(60), 2, "fixed");
    // 2080 cylinders, 16 heads, 63 sectors: what the specification's rounding down leaves of 1 GiB.
    assert.equal(footer.subarray(56, 60).toString("hex"), "0820103f");
    const copy = Buffer.from(footer);
    copy.fill(0, 64, 68);
    assert.equal(footer.readUInt32BE(64), ~copy.reduce((sum, byte) => sum + byte, 0) >>> 0);
  });

  it("is refused for a disk that is not of whole MiB", () => {
    assert.throws(() => vhdFooter((1 << 30) + 512, 1_767_225_600, "x"), RangeError);
  });

  it("knows the geometry of small and large disks", () => {
    const geometry = (mib: number): string =>
      vhdFooter(mib * (1 << 20), 1_767_225_600, "x")
        .subarray(56, 60)
        .toString("hex");
    assert.deepEqual(
      [geometry(2), geometry(40), geometry(200), geometry(500), geometry(1 << 20)],
      ["003c0411", "03c30511", "0339101f", "03f7103f", "ffff10ff"],
    );
  });
});

describe("writeBootDisk", () => {
  const identity = createHash("sha256").update("x").digest("hex");
  const write = async (name: string): Promise<string> => {
    const [unifiedKernelPath, rootPath, target] = [join(home, "efi"), join(home, "root"), join(home, name)];
    writeFileSync(unifiedKernelPath, "MZ kernel");
    const root = Buffer.alloc(4 << 20);
    root.write("file system", 1080);
    root.write("its end", (4 << 20) - 7);
    writeFileSync(rootPath, root);
    await writeBootDisk({ arch: "x64", unifiedKernelPath, rootPath, rootMiB: 4, identity, target }, background());
    return target;
  };

  it("puts a system partition and the root, found by its name, on a disk of whole MiB", async () => {
    const disk = readFileSync(await write("disk"));
    assert.equal(disk.length, (1 + 48 + 4 + 1) << 20);
    const entries = [0, 1].map((i) => disk.subarray(1024 + i * 128, 1024 + (i + 1) * 128));
    const names = entries.map((e) => e.toString("utf16le", 56).replace(/\0+$/, ""));
    assert.deepEqual(names, ["EFI system", rootLabel(identity)]);
    const starts = entries.map((e) => Number(e.readBigUInt64LE(32)) * 512);
    assert.deepEqual(starts, [1 << 20, 49 << 20]);
    assert.equal(readFat(disk.subarray(starts[0]), "EFI/BOOT/BOOTX64.EFI").toString(), "MZ kernel");
    assert.equal(disk.toString("latin1", (49 << 20) + 1080, (49 << 20) + 1091), "file system");
    assert.equal(disk.toString("latin1", (53 << 20) - 7, 53 << 20), "its end");
    assert.equal(disk.toString("latin1", disk.length - 512, disk.length - 504), "EFI PART");
  });

  it("gives equal disks for equal content", async () => {
    assert.ok(readFileSync(await write("one")).equals(readFileSync(await write("two"))));
  });

  it("is what sfdisk finds nothing wrong with", {
    skip: onPath("sfdisk") ? false : "sfdisk is not installed",
  }, async () => {
    const said = execFileSync("sfdisk", ["--verify", await write("verified")], { encoding: "utf8" });
    assert.match(said, /No errors detected/);
  });

  it("becomes a VHD by a footer", async () => {
    const disk = await write("raw");
    const vhd = join(home, "vhd");
    await convertDisk(disk, "vhd", vhd, { dateSeconds: 1_767_225_600, identity }, background());
    const [before, after] = [readFileSync(disk), readFileSync(vhd)];
    assert.equal(after.length, before.length + 512);
    assert.ok(after.subarray(0, before.length).equals(before));
    assert.equal(after.toString("latin1", before.length, before.length + 8), "conectix");
  });

  it("becomes a qcow2 that holds the same", {
    skip: onPath("qemu-img") ? false : "qemu-img is not installed",
  }, async () => {
    const [disk, qcow2] = [await write("source"), join(home, "qcow2")];
    await convertDisk(disk, "qcow2", qcow2, { dateSeconds: 1_767_225_600, identity }, background());
    execFileSync("qemu-img", ["compare", "-q", "-f", "raw", "-F", "qcow2", disk, qcow2]);
  });
});
