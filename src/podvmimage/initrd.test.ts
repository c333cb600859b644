import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { initScript, KERNEL_PARAMS, LEASE_SCRIPT, NETWORK_SCRIPT } from "./boot-scripts.ts";
import { characterDevice, cpioArchive, directory, file } from "./cpio.ts";
import { diskInitScript, diskKernelParams } from "./disk-init.ts";
import { modulesInOrder } from "./root-tree.ts";

const home = mkdtempSync(join(tmpdir(), "initrd-"));
after(() => rmSync(home, { recursive: true }));

describe("cpioArchive", () => {
  const entries = [
    directory("dev"),
    characterDevice("dev/null", 1, 3),
    file("init", "#!x\n", 0o755),
    file("empty", ""),
  ];
  const archive = cpioArchive(entries);

  it("is what cpio reads", () => {
    const listing = execFileSync("cpio", ["-itv", "--quiet"], {
      input: archive,
      encoding: "utf8",
      env: { ...process.env, TZ: "UTC", LC_ALL: "C" },
    });
    const lines = listing
      .trim()
      .split("\n")
      .map((line) => line.replace(/\s+/g, " "));
    assert.deepEqual(lines, [
      "drwxr-xr-x 1 root root 0 Jan 1 1970 dev",
      "crw-rw-rw- 1 root root 1, 3 Jan 1 1970 dev/null",
      "-rwxr-xr-x 1 root root 4 Jan 1 1970 init",
      "-rw-r--r-- 1 root root 0 Jan 1 1970 empty",
    ]);
  });

  it("is the same for the same entries", () => {
    assert.deepEqual(cpioArchive(entries), archive);
  });
});

describe("modulesInOrder", () => {
  it("puts what a module needs before it, once, and leaves out what is built in", async () => {
    const dep = join(home, "lib/modules/6.1/modules.dep");
    mkdirSync(dirname(dep), { recursive: true });
    const ring = "kernel/drivers/virtio/virtio_ring.ko";
    const virtio = "kernel/drivers/virtio/virtio.ko";
    writeFileSync(
      dep,
      [
        `kernel/virtio-pci.ko: ${virtio} ${ring}`,
        `${ring}:`,
        `kernel/virtio_blk.ko: ${virtio} ${ring}`,
        `${virtio}: ${ring}`,
        "",
      ].join("\n"),
    );
    const files = await modulesInOrder(home, "6.1", ["virtio_pci", "virtio_blk", "ext4"]);
    assert.deepEqual(files, [ring, virtio, "kernel/virtio-pci.ko", "kernel/virtio_blk.ko"]);
  });
});

describe("the guest's boot scripts", () => {
  const disk = diskInitScript({ virtio: ["a.ko", "b.ko"], hyperv: ["bus.ko", "c.ko"] });
  const init = initScript(["a.ko", "b.ko"]);
  for (const [name, script] of Object.entries({ init, disk, NETWORK_SCRIPT, LEASE_SCRIPT })) {
    it(`${name} is a shell script`, () => {
      execFileSync("sh", ["-n"], { input: script });
    });
  }

  it("load the modules in the order given and name the root that the kernel is told of", () => {
    assert.match(initScript(["a.ko", "b.ko"]), /for m in a\.ko b\.ko; do/);
    assert.ok(KERNEL_PARAMS.includes("root=/dev/vda"));
  });

  it("load a cloud's drivers by the machine, and find the root by its partition's name", () => {
    assert.match(disk, /Microsoft\*\) ! \$b insmod \/modules\/bus\.ko \|\| load c\.ko ;;/);
    assert.match(disk, /0x1af4 \] \|\| \{ load a\.ko b\.ko; break; \}/);
    assert.equal(diskKernelParams("kata-remote-0123").at(-1), "root=PARTLABEL=kata-remote-0123");
    assert.ok(!diskKernelParams("x").some((p) => p.startsWith("kata-remote.user-data")), "the machine says where");
  });
});
