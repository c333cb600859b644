import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { type InstanceId, newOperationId, newSandboxId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import type { InstanceSpec, Provider } from "../../src/provider/index.ts";
import { tinyKernel } from "../../test/fakes/tiny-kernel.ts";
import { localProvider } from "./index.ts";

const missing = ["qemu-system-x86_64", "qemu-img", "genisoimage", "setpriv"].filter(
  (c) => spawnSync(c, ["--version"]).error !== undefined,
);

describe("provider local", {
  skip: missing.length > 0 ? `not installed: ${missing.join(", ")}` : false,
  timeout: 60_000,
}, () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "local-"));
    for (const then of ["halt", "reset"] as const) await image(then, tinyKernel("Linux version tiny\n", then));
    await image("broken", "not a kernel");
  });
  after(() => rm(dir, { recursive: true }));

  async function image(name: string, kernel: string | Uint8Array): Promise<void> {
    await mkdir(join(dir, name));
    await writeFile(join(dir, name, "vmlinuz"), kernel);
    await writeFile(join(dir, name, "initrd.img"), "none");
    await writeFile(join(dir, name, "disk.raw"), "");
    await truncate(join(dir, name, "disk.raw"), 1 << 20);
    const files = { kernel: { file: "vmlinuz" }, initrd: { file: "initrd.img" }, disk: { file: "disk.raw" } };
    await writeFile(join(dir, name, "manifest.json"), JSON.stringify({ ...files, kernelParams: [] }));
  }

  async function open(config: Record<string, unknown> = {}): Promise<Provider> {
    const all = {
      stateDir: join(dir, "vms"),
      imageDir: join(dir, "halt"),
      acceleration: "tcg",
      network: "user",
      cacheDir: dir,
      ...config,
    };
    return localProvider.create(parseConfig(localProvider.configSchema, all, "test"), {
      log: silentLogger(),
      now: () => new Date(),
    });
  }

  function spec(): InstanceSpec {
    const tags = {
      cluster: "c",
      owner: "kata-remote",
      createOperation: newOperationId(),
      created: new Date().toISOString(),
    } as const;
    return {
      name: "podvm-a-0123",
      tags,
      sandboxId: newSandboxId(),
      vcpus: 1,
      memoryMiB: 64,
      gpus: 0,
      userData: Buffer.from("secret"),
    };
  }

  const left = async (): Promise<string[]> => (await readdir(join(dir, "vms"))).sort();

  it("writes down what it makes before the VM runs, without its user-data", async () => {
    const provider = await open();
    const made = await provider.createInstance(spec(), background());
    const text = await readFile(join(dir, "vms", made.id, "instance.json"), "utf8");
    assert.equal((await stat(join(dir, "vms", made.id, "instance.json"))).mode & 0o777, 0o600);
    assert.ok(text.includes(made.tags.createOperation) && !text.includes("secret"));
    await provider.deleteInstance(made.id, background());
    assert.deepEqual(await left(), []);
    await provider.close();
  });

  it("leaves nothing when a VM does not start, and says why in QEMU's words", async () => {
    const provider = await open({ imageDir: join(dir, "broken") });
    await assert.rejects(provider.createInstance(spec(), background()), {
      code: "failed_precondition",
      message: /did not start.*qemu/,
    });
    assert.deepEqual(await left(), []);
    const noImage = await open({ imageDir: join(dir, "no-image") });
    await assert.rejects(noImage.createInstance(spec(), background()), {
      code: "failed_precondition",
      message: /kata-remote image build/,
    });
    assert.deepEqual(await left(), []);
    await provider.close();
    await noImage.close();
  });

  it("shows a VM that ended by itself as failed, with its last words", async () => {
    const provider = await open({ imageDir: join(dir, "reset") });
    const { id } = await provider.createInstance(spec(), background());
    let seen = await provider.getInstance(id, background());
    for (let i = 0; seen?.state === "running" && i < 200; i++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      seen = await provider.getInstance(id, background());
    }
    assert.equal(seen?.state, "failed");
    assert.match(seen?.reason ?? "", /last console line: Linux version tiny/);
    await provider.deleteInstance(id, background());
    await provider.close();
  });

  it("lists an instance whose create was cut short, and finishes it when it is asked again", async () => {
    const provider = await open();
    const wanted = spec();
    const { id } = await provider.createInstance(wanted, background());
    const path = join(dir, "vms", id, "instance.json");
    const { started, ...unstarted } = JSON.parse(await readFile(path, "utf8")) as { started: { pid: number } };
    process.kill(started.pid, "SIGKILL");
    await rm(join(dir, "vms", id, "vm"), { recursive: true });
    await writeFile(path, JSON.stringify(unstarted));
    const [listed] = await provider.listInstances("c", background());
    assert.deepEqual([listed?.id, listed?.state, listed?.addresses], [id, "pending", []]);
    const again = await provider.createInstance(wanted, background());
    assert.deepEqual([again.id, again.state], [id, "running"]);
    await provider.deleteInstance(id, background());
    await provider.close();
  });

  it("removes directories that nobody finished, but not those being made", async () => {
    await mkdir(join(dir, "vms", ".new-old"), { recursive: true });
    await mkdir(join(dir, "vms", ".new-young"));
    await utimes(join(dir, "vms", ".new-old"), 1, 1);
    const provider = await open();
    const { id } = await provider.createInstance(spec(), background());
    assert.deepEqual(await left(), [".new-young", id]);
    await provider.deleteInstance(id, background());
    await rm(join(dir, "vms", ".new-young"), { recursive: true });
    await provider.close();
  });

  it("is deleted while it is being made", async () => {
    const provider = await open();
    const wanted = spec();
    for (const delayMs of [0, 20, 60]) {
      const creating = provider.createInstance(
        { ...wanted, tags: { ...wanted.tags, createOperation: newOperationId() } },
        background(),
      );
      creating.catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      for (const id of await left()) await provider.deleteInstance(id as InstanceId, background());
      const made = await creating.catch(() => undefined);
      if (made !== undefined) await provider.deleteInstance(made.id, background());
      assert.deepEqual(await left(), []);
    }
    await provider.close();
  });

  it("touches nothing outside of its directory, whatever the id", async () => {
    const provider = await open();
    for (const id of ["..", "local-..", "local-0123/../../halt"] as InstanceId[]) {
      assert.equal(await provider.deleteInstance(id, background()), "gone");
      assert.equal(await provider.getInstance(id, background()), undefined);
      assert.equal(await provider.consoleOutput(id, 10, background()), undefined);
    }
    assert.ok((await readdir(dir)).includes("halt"));
    await provider.close();
  });

  it("says which choice it does not have", async () => {
    const provider = await open();
    await assert.rejects(provider.createInstance({ ...spec(), instanceType: "m1.huge" }, background()), {
      message: /instance types: "m1.huge"/,
    });
    await assert.rejects(provider.createInstance({ ...spec(), image: "x.raw" }, background()), {
      message: /images: "x.raw"/,
    });
    await provider.close();
  });

  it("finds what the host lacks, without changing anything", async () => {
    const provider = await open({
      stateDir: join(dir, "never-made"),
      imageDir: join(dir, "no-image"),
      qemu: "no-such-qemu",
    });
    const findings = await provider.verify(background());
    const errors = findings.filter((f) => f.state === "error").map((f) => f.subject);
    assert.deepEqual(errors, ["no-such-qemu", "pod VM image"]);
    assert.ok(!(await readdir(dir)).includes("never-made"));
    await provider.close();
  });

  it("takes emulation where KVM does not boot a VM", async () => {
    const fake = join(dir, "qemu-without-kvm");
    await writeFile(
      fake,
      '#!/bin/sh\ncase "$*" in *"-accel kvm"*) echo "no kvm today" >&2; exit 1;; esac\nexec qemu-system-x86_64 "$@"\n',
    );
    await chmod(fake, 0o755);
    const provider = await open({ acceleration: "auto", qemu: fake, cacheDir: join(dir, "cache") });
    const { id } = await provider.createInstance(spec(), background());
    await provider.deleteInstance(id, background());
    const finding = (await provider.verify(background())).find((f) => f.subject === "acceleration");
    assert.equal(finding?.state, "warning");
    await provider.close();
    const insisting = await open({ acceleration: "kvm", qemu: fake, cacheDir: join(dir, "cache") });
    await assert.rejects(insisting.createInstance(spec(), background()), {
      code: "failed_precondition",
      message: /KVM/,
    });
    await insisting.close();
  });
});
