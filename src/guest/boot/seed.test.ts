import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { renderUserData } from "../../userdata/index.ts";
import { readSeed, readVolume } from "./seed.ts";

const home = mkdtempSync(join(tmpdir(), "seed-"));
after(() => rmSync(home, { recursive: true }));
const caPem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const userData = renderUserData({ caPem });

function iso(path: string, label: string): void {
  const source = mkdtempSync(join(home, "source-"));
  writeFileSync(join(source, "user-data"), userData);
  writeFileSync(join(source, "meta-data"), "instance-id: x\n");
  for (let i = 0; i < 60; i += 1)
    writeFileSync(join(source, `a-file-with-a-long-name-that-fills-the-directory-${i}`), "x");
  execFileSync("genisoimage", ["-quiet", "-output", path, "-volid", label, "-joliet", "-rock", source]);
}

describe("the NoCloud seed", () => {
  it("is found among the disks and read without mounting it", async () => {
    const sysBlock = join(home, "sys");
    const dev = join(home, "dev");
    for (const name of ["vda", "vdb", "vdc", "loop0"]) mkdirSync(join(sysBlock, name), { recursive: true });
    mkdirSync(dev);
    writeFileSync(join(dev, "vda"), Buffer.alloc(100_000, 1));
    iso(join(dev, "vdb"), "other");
    iso(join(dev, "vdc"), "cidata");
    assert.equal(await readSeed({ sysBlock, dev }), Buffer.from(userData).toString());
  });

  it("is not seen in anything else", () => {
    const path = join(home, "x");
    writeFileSync(path, "short");
    assert.equal(readVolume(path), undefined);
    iso(path, "backup");
    assert.equal(readVolume(path), undefined);
    assert.equal(readVolume(join(home, "missing")), undefined);
  });
});
