import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import type { Fault } from "../../base/fault.ts";
import { silentLogger } from "../../base/log.ts";
import type { TreeSpec } from "../../relay/index.ts";
import { checkRootfs, clearMountDir, identify, type RootfsMount, sendRootfs } from "./rootfs.ts";

const asRoot = { skip: process.getuid?.() === 0 ? false : "needs root: it mounts" };
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "rootfs-"));
  for (const d of ["a", "b", "upper", "work", "mnt"]) await mkdir(join(dir, d));
  await writeFile(join(dir, "a", "from-a"), "a");
  await writeFile(join(dir, "b", "from-b"), "b");
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const overlay = (...lower: string[]): RootfsMount => ({
  type: "overlay",
  source: "overlay",
  target: "",
  options: [
    "index=off",
    `workdir=${join(dir, "work")}`,
    `upperdir=${join(dir, "upper")}`,
    `lowerdir=${lower.map((l) => join(dir, l)).join(":")}`,
  ],
});

/** Sends, and gives what the tree held while it was sent. */
async function send(mounts: readonly RootfsMount[], rootPath = "rootfs") {
  const seen: { tree: TreeSpec; entries: string[]; writable: boolean }[] = [];
  const deps = { mountDir: join(dir, "mnt"), log: silentLogger() };
  await sendRootfs(
    deps,
    { mounts, bundle: dir, rootPath },
    async (tree) => {
      const writable = await writeFile(join(tree.path, "x"), "").then(
        () => true,
        () => false,
      );
      seen.push({ tree, entries: (await readdir(tree.path)).sort(), writable });
      return { bytes: 0, sha256: "", skipped: false };
    },
    background(),
  );
  const [only] = seen;
  assert.ok(only);
  return only;
}

const mounted = async (): Promise<boolean> => (await readFile("/proc/self/mountinfo", "utf8")).includes(dir);

describe("a root file system from the node", asRoot, () => {
  it("is mounted read-only while it is sent, and gone afterwards", async () => {
    const { entries, writable } = await send([overlay("a", "b")]);
    assert.deepEqual([entries, writable], [["from-a", "from-b"], false]);
    assert.deepEqual([await mounted(), await readdir(join(dir, "mnt"))], [false, []]);
  });

  it("may be a bind mount, as of the native snapshotter", async () => {
    const { entries, writable } = await send([
      { type: "bind", source: join(dir, "a"), target: "", options: ["rbind", "rw"] },
    ]);
    assert.deepEqual([entries, writable], [["from-a"], false]);
    assert.equal(await mounted(), false);
  });

  it("may have many layers", async () => {
    const layers = Array.from({ length: 60 }, (_, i) => `layer-${i}`);
    for (const l of layers) {
      await mkdir(join(dir, l));
      await writeFile(join(dir, l, l), "");
    }
    assert.equal((await send([overlay(...layers)])).entries.length, 60);
  });

  it("is unmounted when sending fails", async () => {
    const deps = { mountDir: join(dir, "mnt"), log: silentLogger() };
    const failing = sendRootfs(
      deps,
      { mounts: [overlay("a")], bundle: dir, rootPath: "rootfs" },
      async () => Promise.reject(new Error("cut")),
      background(),
    );
    await assert.rejects(failing, /cut/);
    assert.deepEqual([await mounted(), await readdir(join(dir, "mnt"))], [false, []]);
  });

  it("that cannot be mounted is named with what mount said", async () => {
    const broken = { type: "ext4", source: join(dir, "a", "from-a"), target: "", options: ["loop"] };
    await assert.rejects(send([broken]), (e: Fault) => {
      assert.match(
        e.fullMessage,
        /rootfs mount of type "ext4" from ".*from-a" cannot be mounted on the node: .*mount: /s,
      );
      return true;
    });
    assert.deepEqual(await readdir(join(dir, "mnt")), []);
  });

  it("with a layer that is not there is refused before there is a VM", async () => {
    const broken = { ...overlay("a"), options: ["lowerdir=/does/not/exist"] };
    await assert.rejects(checkRootfs({ mounts: [broken], bundle: dir, rootPath: "rootfs" }), (e: Fault) => {
      assert.match(e.fullMessage, /a layer of the rootfs mount is not there: .*\/does\/not\/exist/);
      return true;
    });
  });

  it("left mounted by a killed daemon is taken away by the next", async () => {
    const left = join(dir, "mnt", "0123");
    await mkdir(left);
    await exec("mount", ["--bind", join(dir, "a"), left], background());
    await clearMountDir({ mountDir: join(dir, "mnt"), log: silentLogger() });
    assert.deepEqual(
      [await mounted(), await readdir(join(dir, "mnt")), await readdir(join(dir, "a"))],
      [false, [], ["from-a"]],
    );
  });
});

describe("a directory as root file system (ctr run --rootfs)", () => {
  it("is sent from where it is", async () => {
    const { tree } = await send([], join(dir, "a"));
    assert.equal(tree.path, join(dir, "a"));
  });

  it("that is missing or empty is refused by name", async () => {
    await assert.rejects(
      checkRootfs({ mounts: [], bundle: dir, rootPath: "none" }),
      /root\.path = "none": .*none cannot be read/,
    );
    await assert.rejects(
      checkRootfs({ mounts: [], bundle: dir, rootPath: "upper" }),
      /root\.path = "upper": .*upper is empty/,
    );
    await assert.rejects(
      checkRootfs({ mounts: [], bundle: dir, rootPath: join(dir, "a/from-a") }),
      /is not a directory/,
    );
  });
});

describe("a tree's name", () => {
  it("is the same for unwritten overlays of the same layers", async () => {
    assert.equal(await identify([overlay("a", "b")]), await identify([overlay("a", "b")]));
    assert.notEqual(await identify([overlay("a", "b")]), await identify([overlay("b", "a")]));
  });

  it("changes with a layer", async () => {
    const before = await identify([overlay("a", "b")]);
    await chmod(join(dir, "a"), 0o700);
    assert.notEqual(await identify([overlay("a", "b")]), before);
  });

  it("is new for what was written to, and for anything but one overlay", async () => {
    const bind = { type: "bind", source: join(dir, "a"), target: "", options: ["rbind"] };
    assert.notEqual(await identify([bind]), await identify([bind]));
    assert.notEqual(await identify([overlay("a"), bind]), await identify([overlay("a"), bind]));
    await writeFile(join(dir, "upper", "new"), "");
    assert.notEqual(await identify([overlay("a")]), await identify([overlay("a")]));
  });
});
