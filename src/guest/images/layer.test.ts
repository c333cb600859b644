import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { type LayerEntry, makeLayer, sha256 } from "../../../test/support/test-image.ts";
import { background } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { settleImplicitDirectories } from "./implicit-directories.ts";
import { unpackLayer } from "./unpack-layer.ts";

const home = mkdtempSync(join(tmpdir(), "layer-"));
after(() => rmSync(home, { recursive: true }));
const skip = process.getuid?.() !== 0;

/** Unpacks an archive, its bytes in pieces of an odd length. */
async function unpack(tar: Buffer, pieceBytes = 1000) {
  const directory = mkdtempSync(join(home, "d-"));
  async function* blob(): AsyncGenerator<Buffer> {
    for (let at = 0; at < tar.length; at += pieceBytes) yield tar.subarray(at, at + pieceBytes);
  }
  const layer = { blob: blob(), diffId: sha256(tar), directory, what: "the layer" };
  return { directory, ...(await unpackLayer(layer, background())) };
}
const layer = async (...entries: LayerEntry[]) => unpack(await makeLayer(entries));
const reason = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => assert.fail("it was unpacked"),
    (e: unknown) => Fault.from(e).fullMessage,
  );
/** What GNU tar makes of a directory. */
const gnuTar = (directory: string, ...options: string[]): Buffer =>
  execFileSync("tar", ["-C", directory, "-c", ...options, "."], { maxBuffer: 1 << 28 });

describe("a layer", { skip }, () => {
  it("keeps kinds, owners, modes, times and links", async () => {
    const { directory } = await layer(
      { name: "a/", type: "directory", mode: 0o1750, uid: 1, gid: 2, mtime: new Date(5000) },
      { name: "a/set", content: "x", mode: 0o4711, uid: 3, gid: 4, mtime: new Date(7000) },
      { name: "a/hard", type: "link", linkname: "a/set" },
      { name: "a/soft", type: "symlink", linkname: "/nowhere", uid: 5, mtime: new Date(9000) },
      { name: "a/tty", type: "character-device", devmajor: 5, devminor: 300, mode: 0o620 },
      { name: "a/fifo", type: "fifo", mode: 0o600 },
    );
    const at = (name: string) => lstatSync(join(directory, name));
    assert.deepEqual([at("a").mode & 0o7777, at("a").uid, at("a").gid, at("a").mtimeMs], [0o1750, 1, 2, 5000]);
    assert.deepEqual([at("a/set").mode & 0o7777, at("a/set").uid, at("a/set").mtimeMs], [0o4711, 3, 7000]);
    assert.equal(at("a/hard").ino, at("a/set").ino);
    assert.deepEqual(
      [readlinkSync(join(directory, "a/soft")), at("a/soft").uid, at("a/soft").mtimeMs],
      ["/nowhere", 5, 9000],
    );
    assert.ok(at("a/fifo").isFIFO());
    assert.equal(
      execFileSync("stat", ["-c", "%F %t:%T", join(directory, "a/tty")], { encoding: "utf8" }).trim(),
      "character special file 5:12c",
    );
  });

  it("shows what was removed as overlay wants it", async () => {
    const { directory } = await layer(
      { name: ".wh.gone" },
      { name: "d/", type: "directory" },
      { name: "d/.wh..wh..opq" },
      { name: "own/", type: "directory" },
      { name: ".wh.own" },
      { name: ".wh.later" },
      { name: "later/", type: "directory" },
      { name: ".wh..wh.plnk/", type: "directory" },
    );
    const gone = lstatSync(join(directory, "gone"));
    assert.ok(gone.isCharacterDevice() && gone.rdev === 0);
    const opaque = (name: string): string =>
      execFileSync(
        "getfattr",
        ["--absolute-names", "-n", "trusted.overlay.opaque", "--only-values", join(directory, name)],
        { encoding: "utf8" },
      );
    assert.deepEqual(["d", "own", "later"].map(opaque), ["y", "y", "y"]);
    assert.deepEqual(readdirSync(directory).sort(), ["d", "gone", "later", "own"]);
  });

  it("stays inside of its directory, whatever its entries say", async () => {
    const outside = join(home, "outside");
    mkdirSync(outside, { recursive: true });
    for (const name of ["../up", "a/../../up", "/../up"])
      assert.match(await reason(layer({ name, content: "x" })), /leads out of it/);
    const { directory } = await layer(
      { name: "link", type: "symlink", linkname: outside },
      { name: "up", type: "symlink", linkname: "../../../../../../../.." },
      { name: "real/", type: "directory" },
      { name: "inner", type: "symlink", linkname: "/real" },
      { name: "inner/file", content: "followed inside" },
      { name: `up${outside}/file`, content: "in the layer's own root" },
      { name: "/absolute", content: "below the root" },
    );
    assert.deepEqual(readdirSync(outside), []);
    assert.equal(readFileSync(join(directory, "real/file"), "utf8"), "followed inside");
    assert.equal(readFileSync(join(directory, outside, "file"), "utf8"), "in the layer's own root");
    assert.ok(existsSync(join(directory, "absolute")));
    const through = { name: "link/file", content: "x" };
    const leads = await reason(layer({ name: "link", type: "symlink", linkname: `${outside}/no` }, through));
    assert.match(leads, /below "link", which is no directory/);
    assert.deepEqual(readdirSync(outside), []);
    writeFileSync(join(home, "secret"), "secret");
    const steal = layer(
      { name: "s", type: "symlink", linkname: home },
      { name: "x", type: "link", linkname: "s/secret" },
    );
    assert.match(await reason(steal), /hard link to "s\/secret", which the layer does not have/);
  });

  it("lets the last entry of a name win", async () => {
    const { directory } = await layer(
      { name: "x", content: "first" },
      { name: "x", content: "second" },
      { name: "l", type: "symlink", linkname: "x" },
      { name: "l", content: "no link" },
      { name: "d/", type: "directory" },
      { name: "d/f", content: "" },
      { name: "d", content: "a file now" },
      { name: "x", type: "directory" },
    );
    assert.ok(statSync(join(directory, "x")).isDirectory());
    assert.equal(readFileSync(join(directory, "l"), "utf8"), "no link");
    assert.equal(readFileSync(join(directory, "d"), "utf8"), "a file now");
  });

  it("may be written by GNU tar in any of its forms, with long and strange names, holes and attributes", async () => {
    const from = mkdtempSync(join(home, "from-"));
    const long = `${"n".repeat(150)}/${"m".repeat(150)}`;
    mkdirSync(join(from, "n".repeat(150)));
    writeFileSync(join(from, long), "long");
    symlinkSync("t".repeat(200), join(from, "long-target"));
    writeFileSync(Buffer.from([...Buffer.from(`${from}/`), 0x66, 0xff, 0xfe]), "not utf-8");
    const sparse = join(from, "sparse");
    writeFileSync(sparse, "");
    truncateSync(sparse, 40 << 20);
    // More extents than one header has.
    const fd = openSync(sparse, "r+");
    for (let i = 0; i < 30; i += 1) writeSync(fd, Buffer.alloc(5000, 65 + i), 0, 5000, i * (1 << 20) + 4096);
    closeSync(fd);
    execFileSync("setfattr", ["-n", "user.note", "-v", "0x00ff10", join(from, long)]);
    for (const format of [
      ["--format=gnu"],
      ["--format=posix"],
      ["--format=posix", "--sparse-version=0.0"],
      ["--format=posix", "--sparse-version=0.1"],
      ["--format=posix", "--sparse-version=1.0"],
    ]) {
      const xattrs = format[0] === "--format=posix" ? ["--xattrs"] : [];
      const { directory } = await unpack(gnuTar(from, "--sparse", ...xattrs, ...format));
      assert.equal(readFileSync(join(directory, long), "utf8"), "long", String(format));
      assert.equal(readlinkSync(join(directory, "long-target")), "t".repeat(200));
      assert.ok(existsSync(Buffer.from([...Buffer.from(`${directory}/`), 0x66, 0xff, 0xfe])));
      assert.ok(readFileSync(join(directory, "sparse")).equals(readFileSync(sparse)), String(format));
      assert.ok(statSync(join(directory, "sparse")).blocks * 512 < 2 << 20, "holes stay holes");
      if (xattrs.length > 0) {
        const note = execFileSync(
          "getfattr",
          ["--absolute-names", "-n", "user.note", "-e", "hex", join(directory, long)],
          { encoding: "utf8" },
        );
        assert.match(note, /0x00ff10/);
      }
    }
  });

  it("of other bytes than its archive format allows is refused, not half taken for whole", async () => {
    const tar = await makeLayer([
      { name: "a", content: "x".repeat(3000) },
      { name: "b", content: "y" },
    ]);
    assert.match(await reason(unpack(tar.subarray(0, 2000))), /cannot be unpacked, .*: .*ends in the middle/);
    const broken = Buffer.from(tar);
    broken.write("z", 1);
    assert.match(await reason(unpack(broken)), /header's checksum is wrong/);
    assert.match(await reason(unpack(Buffer.from("not an archive at all".repeat(100)))), /cannot be unpacked/);
  });

  it("that leaves directories out looks there like the layers below", async () => {
    const lower = await layer(
      { name: "./", type: "directory", mode: 0o750 },
      { name: "d/", type: "directory", mode: 0o711, uid: 7, gid: 8, mtime: new Date(3000) },
    );
    const upper = await layer({ name: "d/new/file", content: "x" });
    const stored = [lower, upper].map((l, i) => ({
      ...{ diffId: `sha256:${i}`, directory: l.directory, implicit: new Set(l.implicit), bytes: l.bytes, users: 0 },
    }));
    settleImplicitDirectories(stored);
    const at = (name: string) => statSync(join(upper.directory, name));
    assert.deepEqual([at("d").mode & 0o7777, at("d").uid, at("d").gid, at("d").mtimeMs], [0o711, 7, 8, 3000]);
    assert.equal(at(".").mode & 0o7777, 0o750);
    assert.equal(at("d/new").mode & 0o7777, 0o755);
  });
});
