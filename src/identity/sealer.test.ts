import assert from "node:assert/strict";
import { lstat, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Sealer } from "./sealer.ts";

async function directory() {
  const dir = await mkdtemp(join(tmpdir(), "seal-"));
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) };
}

describe("a sealer", () => {
  it("gives back what it sealed, to the same context only, also after a restart; its keys are its owner's", async () => {
    await using d = await directory();
    const sealer = await Sealer.open(d.dir);
    assert.deepEqual(await readdir(d.dir), [], "no key before there is a secret");
    const sealed = await sealer.seal(Buffer.from("secret"), "a");
    assert.ok(!sealed.includes("secret"));
    assert.equal((await lstat(join(d.dir, "seal.keys"))).mode & 0o777, 0o600);
    const again = await Sealer.open(d.dir);
    assert.equal(again.open(sealed, "a").toString(), "secret");
    assert.throws(() => again.open(sealed, "b"), { code: "failed_precondition" });
    const changed = `${sealed.slice(0, -4)}${sealed.at(-4) === "A" ? "B" : "A"}${sealed.slice(-3)}`;
    assert.throws(() => again.open(changed, "a"), { code: "failed_precondition" });
  });

  it("takes a new key when the old one's time is over, and still opens what that sealed", async () => {
    await using d = await directory();
    let now = new Date("2026-01-01T00:00:00Z");
    const sealer = await Sealer.open(d.dir, { now: () => now, rotateAfterMs: 1000 });
    const sealed = await sealer.seal(Buffer.from("1"), "a");
    const first = await sealer.currentKey();
    now = new Date("2026-01-01T00:00:01Z");
    assert.notEqual(await sealer.currentKey(), first);
    assert.notEqual((await sealer.seal(Buffer.from("2"), "a")).split(".")[0], first);
    assert.equal((await Sealer.open(d.dir)).open(sealed, "a").toString(), "1");
  });

  it("says which file is not right", async () => {
    await using d = await directory();
    await writeFile(join(d.dir, "seal.keys"), "{}");
    await assert.rejects(Sealer.open(d.dir), /seal\.keys/);
    await rm(join(d.dir, "seal.keys"));
    const sealed = await (await Sealer.open(d.dir)).seal(Buffer.from("x"), "a");
    await rm(join(d.dir, "seal.keys"));
    const other = await Sealer.open(d.dir);
    await other.currentKey();
    assert.throws(() => other.open(sealed, "a"), /put the file there again/);
    assert.equal(JSON.parse(await readFile(join(d.dir, "seal.keys"), "utf8")).keys.length, 1);
  });
});
