import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { tinyKernel } from "../../../test/fakes/tiny-kernel.ts";
import { background, withDeadline } from "../../base/call.ts";
import { silentLogger } from "../../base/log.ts";
import { sleep } from "../../base/retry.ts";
import { CONSOLE_KEY_PREFIX, CONSOLE_LISTENING } from "../../guestwire/index.ts";
import { loadBootImage } from "../boot-image.ts";
import type { VmmSpec } from "../vmm.ts";
import { QemuVmm } from "./qemu-vmm.ts";
import { starvedMs } from "./starved.ts";

const missing = ["qemu-system-x86_64", "qemu-img", "setpriv"].filter(
  (c) => spawnSync(c, ["--version"]).error !== undefined,
);
const skip = missing.length > 0 ? `not installed: ${missing.join(", ")}` : false;

describe("guests that show no life", { skip, timeout: 120_000 }, () => {
  let dir: string;
  let vmm: QemuVmm;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "boot-"));
    await writeFile(join(dir, "kernel"), tinyKernel("firmware was here\n", "halt"));
    await writeFile(join(dir, "initrd"), "none");
    await writeFile(join(dir, "image"), "");
    await truncate(join(dir, "image"), 1 << 20);
    vmm = new QemuVmm({ log: silentLogger(), cacheDir: dir, noLifeMs: 1500 });
  });
  after(async () => {
    await vmm[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  async function specOf(name: string, lifeSign: string): Promise<VmmSpec> {
    await mkdir(join(dir, name), { mode: 0o700 });
    return {
      ...{ name, dir: join(dir, name), vcpus: 1, memoryMiB: 64, kernelParams: [], guestPort: 15150 },
      ...{ kernelPath: join(dir, "kernel"), initrdPath: join(dir, "initrd"), imagePath: join(dir, "image") },
      ...{ userData: Buffer.from("#cloud-config\n"), metaData: "instance-id: x\n" },
      ...{ lifetime: "child", acceleration: "tcg", lifeSign },
    };
  }
  const consoleOf = (spec: VmmSpec): Promise<string> => readFile(join(spec.dir, "console.log"), "utf8");

  it("are started anew in their QEMU, then ended with the reason", async () => {
    const spec = await specOf("silent", "I live");
    const handle = await vmm.start(spec, background());
    const call = withDeadline(100_000);
    while (!/(firmware.*\n){2}/.test(await consoleOf(spec))) await sleep(50, call);
    assert.equal((await vmm.find(spec.dir, call))?.pid, handle.pid, "the same QEMU");
    const { reason } = await vmm.wait(handle, call);
    assert.match(reason, /no life on its console for 1.5 s, and none after it was started anew; QEMU .* SIGKILL/);
    await vmm.destroy(spec.dir, background());
  });

  it("are left alone once they have shown it", async () => {
    const spec = await specOf("alive", "was here");
    const handle = await vmm.start(spec, background());
    await sleep(4000, background());
    assert.equal((await vmm.find(spec.dir, background()))?.pid, handle.pid);
    assert.equal((await consoleOf(spec)).match(/firmware/g)?.length, 1);
    await vmm.destroy(spec.dir, background());
  });
});

it("what our guests print has the sign of life that our images promise", async () => {
  const dir = await mkdtemp(join(tmpdir(), "image-"));
  for (const file of ["k", "i", "d"]) await writeFile(join(dir, file), "");
  const part = (file: string): object => ({ file });
  const manifest = { kernel: part("k"), initrd: part("i"), disk: part("d"), kernelParams: [] };
  await writeFile(join(dir, "manifest.json"), JSON.stringify(manifest));
  const { lifeSign = "none" } = await loadBootImage(dir);
  assert.ok(CONSOLE_KEY_PREFIX.startsWith(lifeSign) && CONSOLE_LISTENING.startsWith(lifeSign), lifeSign);
  await rm(dir, { recursive: true });
});

it("time without a CPU is that of the thread that waited most", () => {
  const before = new Map([
    ["1", 100],
    ["2", 900],
  ]);
  const after = new Map([
    ["1", 400],
    ["2", 950],
    ["3", 20],
  ]);
  assert.equal(starvedMs(before, after), 300);
});
