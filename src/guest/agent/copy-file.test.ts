import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { CopyFileRequest } from "../../gen/agent/agent.ts";
import { copyFile } from "./copy-file.ts";

const home = realpathSync(mkdtempSync(join(tmpdir(), "copy-file-")));
const base = join(home, "shared");
mkdirSync(base);
after(() => rmSync(home, { recursive: true }));

function request(path: string, over: Parameters<typeof CopyFileRequest.fromPartial>[0] = {}): CopyFileRequest {
  const data = over.data ?? Buffer.from("hello");
  return CopyFileRequest.fromPartial({
    path: path.startsWith("/") ? path : join(base, path),
    fileMode: 0o100640,
    dirMode: 0o040750,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    fileSize: BigInt(data.length),
    ...over,
    data: Buffer.from(data as Uint8Array),
  });
}

describe("copyFile", () => {
  it("writes a file with its mode, and the parents with theirs", () => {
    copyFile(base, request("a/b/file"));
    assert.equal(readFileSync(join(base, "a/b/file"), "utf8"), "hello");
    assert.equal(lstatSync(join(base, "a/b/file")).mode & 0o7777, 0o640);
    assert.equal(lstatSync(join(base, "a")).mode & 0o7777, 0o750);
    copyFile(base, request("empty", { data: Buffer.alloc(0) }));
    assert.equal(lstatSync(join(base, "empty")).size, 0);
  });

  it("shows a file only when all of it is there", () => {
    copyFile(base, request("big", { data: Buffer.from("abc"), fileSize: 6n }));
    assert.ok(!existsSync(join(base, "big")));
    copyFile(base, request("big", { data: Buffer.from("def"), fileSize: 6n, offset: 3n }));
    assert.equal(readFileSync(join(base, "big"), "utf8"), "abcdef");
    copyFile(base, request("big", { data: Buffer.from("xy") }));
    assert.equal(readFileSync(join(base, "big"), "utf8"), "xy");
  });

  it("makes directories and replaces links as kubelet's volumes need it", () => {
    copyFile(base, request("vol/..2026_01/key"));
    copyFile(base, request("vol", { fileMode: 0o040777, data: Buffer.alloc(0) }));
    assert.equal(lstatSync(join(base, "vol")).mode & 0o7777, 0o777);
    for (const target of ["..2025_12", "..2026_01"]) {
      copyFile(base, request("vol/..data", { fileMode: 0o120777, data: Buffer.from(target) }));
    }
    assert.equal(readlinkSync(join(base, "vol/..data")), "..2026_01");
  });

  it("never leaves its directory", () => {
    mkdirSync(join(home, "outside"));
    symlinkSync(join(home, "outside"), join(base, "planted"));
    symlinkSync("../outside/victim", join(base, "victim"));
    symlinkSync("../outside/victim", join(base, "victim.tmp"));
    for (const path of [
      "planted/file",
      "../outside/file",
      "planted/sub/file",
      `${home}/outside/x`,
      base,
      "/etc/passwd",
    ]) {
      assert.throws(() => copyFile(base, request(path)), { code: "invalid_argument" }, path);
    }
    copyFile(base, request("victim"));
    assert.ok(!existsSync(join(home, "outside/victim")));
    assert.ok(!existsSync(join(home, "outside/file")));
    assert.equal(readFileSync(join(base, "victim"), "utf8"), "hello");
  });

  it("refuses pieces outside of the file and kinds that cannot be copied", () => {
    assert.throws(() => copyFile(base, request("f", { fileSize: 2n })), /bytes 0 to 5 are not in a file of 2/);
    assert.throws(() => copyFile(base, request("f", { offset: -1n })), { code: "invalid_argument" });
    assert.throws(() => copyFile(base, request("f", { fileMode: 0o020666 })), /no file, directory or link/);
  });
});
