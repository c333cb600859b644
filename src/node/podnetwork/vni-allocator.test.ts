import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { MAX_VNI } from "../../podnetwork/index.ts";
import { type GivenVnis, VniAllocator } from "./vni-allocator.ts";

describe("VXLAN numbers of a node", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "vni-"));
  });
  after(() => rm(dir, { recursive: true }));
  let files = 0;
  const newPath = (): string => join(dir, "state", `${files++}.json`);
  const on = async (given: Promise<GivenVnis>): Promise<readonly number[]> => {
    const { vnis, written } = await given;
    await written;
    return vnis;
  };

  it("stay with their sandbox over a restart, and are given to nobody else", async () => {
    const path = newPath();
    const first = new VniAllocator({ path, first: 100 });
    assert.deepEqual(await Promise.all([on(first.take("a", 1)), on(first.take("b", 2))]), [[100], [101, 102]]);
    const second = new VniAllocator({ path, first: 100 });
    assert.deepEqual(await on(second.take("a", 1)), [100]);
    assert.deepEqual(await on(second.take("c", 1)), [103]);
  });

  it("are written together when pods start together, and a failed write is told to those who waited", async () => {
    const path = newPath();
    const vnis = new VniAllocator({ path, first: 10 });
    const many = await Promise.all(Array.from({ length: 50 }, (_, i) => vnis.take(`pod-${i}`, 1)));
    assert.ok(new Set(many.map((given) => given.written)).size <= 2, "one that runs, one for all others");
    await Promise.all(many.map((given) => given.written));
    const { taken } = JSON.parse(await readFile(path, "utf8")) as { taken: Record<string, number[]> };
    assert.deepEqual(taken, Object.fromEntries(many.map((given, i) => [`pod-${i}`, given.vnis])));
    await rm(dirname(path), { recursive: true });
    const lost = await vnis.take("late", 1);
    await assert.rejects(lost.written, { code: "ENOENT" });
    await mkdir(dirname(path));
    assert.deepEqual(await on(vnis.take("next", 1)), [61]);
    assert.match(await readFile(path, "utf8"), /"late":\[60\]/);
  });

  it("come round late, and only when they are free", async () => {
    const path = newPath();
    const all = new VniAllocator({ path, first: MAX_VNI - 2 });
    assert.deepEqual(await on(all.take("a", 1)), [MAX_VNI - 2]);
    await all.release("a");
    assert.deepEqual(await on(all.take("b", 1)), [MAX_VNI - 1], "not the one that was just given back");
    assert.deepEqual(await on(all.take("c", 2)), [MAX_VNI, MAX_VNI - 2]);
    await assert.rejects(all.take("d", 1), { code: "resource_exhausted" });
    await all.release("b");
    assert.deepEqual(await on(new VniAllocator({ path, first: MAX_VNI - 2 }).take("d", 1)), [MAX_VNI - 1]);
  });

  it("are exchanged when somebody else on the host has them", async () => {
    const vnis = new VniAllocator({ path: newPath(), first: 7 });
    await on(vnis.take("a", 2));
    assert.deepEqual(await on(vnis.replace("a")), [9, 10]);
    assert.deepEqual(await on(vnis.take("a", 2)), [9, 10]);
  });

  it("are given back when nothing is known of their sandbox", async () => {
    const path = newPath();
    const vnis = new VniAllocator({ path, first: MAX_VNI - 1 });
    await on(vnis.take("gone", 1));
    await on(vnis.take("kept", 1));
    await new VniAllocator({ path, first: MAX_VNI - 1 }).retain(["kept"]);
    assert.deepEqual(await on(new VniAllocator({ path, first: MAX_VNI - 1 }).take("new", 1)), [MAX_VNI - 1]);
  });

  it("are not made up when the file is damaged", async () => {
    const path = join(dir, "damaged.json");
    await writeFile(path, "{");
    await assert.rejects(new VniAllocator({ path, first: 1 }).take("a", 1), { message: /damaged\.json is not JSON/ });
    await writeFile(path, '{"version":2,"next":1,"taken":{}}');
    await assert.rejects(new VniAllocator({ path, first: 1 }).take("a", 1), { message: /damaged\.json: version/ });
  });
});
