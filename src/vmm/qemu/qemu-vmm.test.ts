import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { tinyKernel } from "../../../test/fakes/tiny-kernel.ts";
import { background, withDeadline } from "../../base/call.ts";
import { silentLogger } from "../../base/log.ts";
import type { VmmHandle, VmmSpec } from "../vmm.ts";
import { CONSOLE_LIMIT_BYTES, readConsole, trimConsole } from "./console.ts";
import { probeKvm } from "./kvm-probe.ts";
import { identify, isAlive } from "./process.ts";
import { QemuVmm } from "./qemu-vmm.ts";

const missing = ["qemu-system-x86_64", "qemu-img", "setpriv"].filter(
  (c) => spawnSync(c, ["--version"]).error !== undefined,
);
const skip = missing.length > 0 ? `not installed: ${missing.join(", ")}` : false;

describe("QEMU driver", { skip, timeout: 120_000 }, () => {
  let dir: string;
  let vmm: QemuVmm;
  let count = 0;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "qemu-"));
    for (const then of ["halt", "reset", "repeat"] as const) {
      await writeFile(join(dir, then), tinyKernel("Linux version tiny\n", then));
    }
    await writeFile(join(dir, "initrd"), "none");
    await writeFile(join(dir, "image"), "");
    await truncate(join(dir, "image"), 1 << 20);
    vmm = new QemuVmm({ log: silentLogger(), cacheDir: dir });
  });
  afterEach(async () => {
    for (const name of await readdir(dir)) if (name.startsWith("vm")) await vmm.destroy(join(dir, name), background());
  });
  after(async () => {
    await vmm[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  async function newSpec(then: "halt" | "reset" | "repeat" = "halt", change: Partial<VmmSpec> = {}): Promise<VmmSpec> {
    const vmDir = change.dir ?? join(dir, `vm${count++}`);
    await mkdir(vmDir, { recursive: true, mode: 0o700 });
    return {
      ...{ name: "podvm-test", dir: vmDir, vcpus: 1, memoryMiB: 64, kernelParams: [], guestPort: 15150 },
      ...{ kernelPath: join(dir, then), initrdPath: join(dir, "initrd"), imagePath: join(dir, "image") },
      ...{ userData: Buffer.from("#cloud-config\n"), metaData: "instance-id: x\n" },
      ...{ lifetime: "detached", acceleration: "tcg" },
      ...change,
    };
  }

  /** Directories of the VM's own cgroups, in every hierarchy. */
  async function groupsOf(handle: VmmHandle): Promise<string[]> {
    const own = (await readFile(`/proc/${handle.pid}/cgroup`, "utf8"))
      .split("\n")
      .filter((l) => l.includes("/kata-remote/vm-"));
    const names = new Set(own.map((line) => line.slice(line.lastIndexOf("/kata-remote/"))));
    const mounts = (await readFile("/proc/mounts", "utf8"))
      .split("\n")
      .filter((l) => / cgroup2? /.test(l))
      .map((l) => l.split(" ")[1] ?? "");
    return mounts.flatMap((mount) => [...names].map((name) => mount + name)).filter(existsSync);
  }

  async function consoleContains(handle: VmmHandle, text: string): Promise<string> {
    for (const call = withDeadline(20_000); !call.signal.aborted; await delay(20)) {
      const seen = await readConsole(handle.dir, 100_000);
      if (seen?.includes(text) === true) return seen;
    }
    throw new Error(`console never said ${text}`);
  }

  it("boots, is found, is not started twice, and leaves nothing behind", async () => {
    const spec = await newSpec();
    const handle = await vmm.start(spec, background());
    await consoleContains(handle, "Linux version tiny");
    assert.ok(handle.hostPort > 0);
    assert.deepEqual(await vmm.find(spec.dir, background()), handle);
    assert.deepEqual(await vmm.start(spec, background()), handle);
    const groups = await groupsOf(handle);
    await vmm.destroy(spec.dir, background());
    assert.equal(await isAlive(handle), false);
    await assert.rejects(stat(spec.dir), { code: "ENOENT" });
    assert.deepEqual(groups.filter(existsSync), []);
    await vmm.destroy(spec.dir, background());
  });

  it("copes with a directory whose name has a comma", async () => {
    const spec = await newSpec("halt", { dir: join(dir, "vm,with=comma") });
    await consoleContains(await vmm.start(spec, background()), "tiny");
  });

  it("tells why a VM ended by itself", async () => {
    const handle = await vmm.start(await newSpec("reset"), background());
    const { reason } = await vmm.wait(handle, withDeadline(20_000));
    assert.match(reason, /last console line: Linux version tiny/);
    assert.equal(await vmm.find(handle.dir, background()), undefined);
  });

  it("gives QEMU's own words when it does not start, and removes what it had made", async () => {
    const spec = await newSpec("halt", { kernelPath: join(dir, "initrd") });
    await assert.rejects(vmm.start(spec, background()), {
      code: "failed_precondition",
      message: /podvm-test did not start \(exit 1\): qemu/,
    });
    assert.deepEqual(await readdir(spec.dir), []);
    const noImage = await newSpec("halt", { imagePath: join(dir, "no-such-image") });
    await assert.rejects(vmm.start(noImage, background()), {
      code: "failed_precondition",
      message: /image .*no-such-image.*build/,
    });
    const noQemu = new QemuVmm({ log: silentLogger(), cacheDir: dir, qemuPath: "no-such-qemu" });
    await assert.rejects(noQemu.start(spec, background()), { message: /no-such-qemu: not found/ });
    await noQemu[Symbol.asyncDispose]();
    assert.deepEqual(await readdir(spec.dir), []);
  });

  it("is destroyed while it starts", async () => {
    const spec = await newSpec();
    const start = vmm.start(spec, background());
    start.catch(() => undefined);
    await delay(40);
    await vmm.destroy(spec.dir, background());
    await assert.rejects(start, { code: "cancelled" });
    await assert.rejects(stat(spec.dir), { code: "ENOENT" });
  });

  it("adopts a VM whose starter died before writing down its pid", async () => {
    const spec = await newSpec();
    const handle = await vmm.start(spec, background());
    const { hostBootId } = JSON.parse(await readFile(join(spec.dir, "vm.json"), "utf8")) as { hostBootId: string };
    const intent = JSON.stringify({ version: 1, state: "starting", hostBootId, guestPort: 15150 });
    await writeFile(join(spec.dir, "vm.json"), intent);
    assert.deepEqual(await vmm.find(spec.dir, background()), handle);
    await writeFile(join(spec.dir, "vm.json"), intent);
    await vmm.destroy(spec.dir, background());
    assert.equal(await isAlive(handle), false);
  });

  it("never kills another process that got the pid", async () => {
    const spec = await newSpec();
    const handle = await vmm.start(spec, background());
    const bystander = spawn("sleep", ["60"]);
    await once(bystander, "spawn");
    const state = JSON.parse(await readFile(join(spec.dir, "vm.json"), "utf8")) as object;
    const written = JSON.stringify({ ...state, pid: bystander.pid });
    await writeFile(join(spec.dir, "vm.json"), written);
    assert.equal(await vmm.find(spec.dir, background()), undefined);
    process.kill(handle.pid, "SIGKILL");
    await vmm.destroy(spec.dir, background());
    assert.notEqual(await identify(bystander.pid ?? 0), undefined);
    bystander.kill("SIGKILL");
  });

  it("bounds the console while the guest writes without end", async () => {
    const handle = await vmm.start(await newSpec("repeat"), background());
    const path = join(handle.dir, "console.log");
    for (const call = withDeadline(60_000); (await stat(path)).size <= CONSOLE_LIMIT_BYTES; await delay(50))
      call.signal.throwIfAborted();
    await trimConsole(handle.dir);
    const { size, blocks } = await stat(path);
    assert.ok(size < CONSOLE_LIMIT_BYTES && blocks * 512 < CONSOLE_LIMIT_BYTES, `${size} bytes in ${blocks} blocks`);
    assert.equal((await readConsole(handle.dir, 500_000))?.length, 500_000);
    assert.equal(await isAlive(handle), true);
    const groups = await groupsOf(handle);
    await vmm.destroy(handle.dir, background());
    assert.deepEqual(groups.filter(existsSync), [], "a busy VM's groups go too");
  });

  describe("when the process that started it is killed", () => {
    /** Another process that starts the VM, says so and waits to be killed. */
    async function startElsewhere(spec: VmmSpec): Promise<{ starter: ChildProcess; handle: VmmHandle }> {
      const code = `
        import { QemuVmm } from ${JSON.stringify(new URL("./index.ts", import.meta.url).href)};
        import { silentLogger } from ${JSON.stringify(new URL("../../base/log.ts", import.meta.url).href)};
        const vmm = new QemuVmm({ log: silentLogger(), cacheDir: ${JSON.stringify(dir)} });
        const spec = { ...${JSON.stringify(spec)}, userData: Buffer.from("") };
        console.log(JSON.stringify(await vmm.start(spec, { signal: new AbortController().signal })));
        setInterval(() => undefined, 1000);`;
      const starter = spawn(process.execPath, ["--input-type=module", "-e", code], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const [line] = (await once(starter.stdout.setEncoding("utf8"), "data")) as [string];
      return { starter, handle: JSON.parse(line) as VmmHandle };
    }

    it("a detached VM lives on and another process finds and destroys it", async () => {
      const { starter, handle } = await startElsewhere(await newSpec());
      starter.kill("SIGKILL");
      await once(starter, "exit");
      await delay(200);
      assert.deepEqual(await vmm.find(handle.dir, background()), handle);
      const wait = vmm.wait(handle, withDeadline(20_000));
      await vmm.destroy(handle.dir, background());
      assert.match((await wait).reason, /ended/);
      assert.equal(await isAlive(handle), false);
    });

    it("a child VM dies with it", async () => {
      const { starter, handle } = await startElsewhere(await newSpec("halt", { lifetime: "child" }));
      assert.equal(await isAlive(handle), true);
      starter.kill("SIGKILL");
      await once(starter, "exit");
      await vmm.wait(handle, withDeadline(20_000));
      assert.equal(await isAlive(handle), false);
    });
  });

  it("kills its child VMs when it is closed, and only these", async () => {
    const closing = new QemuVmm({ log: silentLogger(), cacheDir: dir });
    const child = await closing.start(await newSpec("halt", { lifetime: "child" }), background());
    const detached = await closing.start(await newSpec(), background());
    await closing[Symbol.asyncDispose]();
    assert.equal(await isAlive(child), false);
    assert.equal(await isAlive(detached), true);
  });
});

describe("KVM probe", () => {
  it("gives up on a QEMU that hangs, and asks once per boot only", async () => {
    const dir = await mkdtemp(join(tmpdir(), "kvm-"));
    try {
      const hanging = join(dir, "qemu");
      await writeFile(hanging, `#!/bin/sh\necho run >>${dir}/runs\nexec sleep 60\n`);
      await chmod(hanging, 0o755);
      const options = { kernelPath: "k", initrdPath: "i", qemuPath: hanging, cacheDir: dir, timeoutMs: 300 };
      const verdict = await probeKvm(options, background());
      assert.equal(verdict.works, false);
      assert.deepEqual(await probeKvm(options, background()), verdict);
      const runs = await readFile(join(dir, "runs"), "utf8").catch(() => "run\n"); // no /dev/kvm: never even started
      assert.equal(runs, "run\n");
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
