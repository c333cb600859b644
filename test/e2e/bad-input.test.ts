import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX, DEBIAN } from "./harness/images.ts";
import { World } from "./harness/world.ts";

interface Case {
  readonly what: string;
  readonly flags: readonly string[];
  /** Each must be in ctr's output: the thing and the value. */
  readonly named: readonly RegExp[];
  readonly command?: readonly string[];
}

const PREFIX = "io.katacontainers.config.hypervisor";
const CASES: readonly Case[] = [
  {
    what: "a number that is none in an annotation",
    flags: ["--annotation", `${PREFIX}.default_vcpus=many`],
    named: [/default_vcpus/, /many/],
  },
  {
    what: "a negative memory size in an annotation",
    flags: ["--annotation", `${PREFIX}.default_memory=-5`],
    named: [/default_memory/, /-5/],
  },
  {
    what: "a backend that does not exist",
    flags: ["--annotation", "io.katacontainers.config.runtime.hypervisor_name=xen"],
    named: [/hypervisor_name/, /xen/],
  },
  { what: "a program that is not in the image", flags: [], named: [/no-such-program/], command: ["no-such-program"] },
  { what: "a host device", flags: ["--device", "/dev/kmsg"], named: [/device/i, /\/dev\/kmsg/] },
  {
    what: "mount propagation to the host",
    flags: ["--mount", "type=bind,src=/etc,dst=/host,options=rbind:rshared"],
    named: [/rshared/, /\/host/],
  },
  {
    what: "a bind mount whose source is not there",
    flags: ["--mount", "type=bind,src=/no/such/source,dst=/x,options=rbind:ro"],
    named: [/\/no\/such\/source/],
  },
];

describe("bad input", () => {
  let world: World;
  before(async () => {
    world = await World.start({ images: ["busybox", "debian"] });
  });
  after(() => world.close());

  for (const { what, flags, named, command } of CASES) {
    it(`${what}: an error that names it, and no VM is left`, async () => {
      const outcome = await world.containerd.runContainer("bad", BUSYBOX, command ?? ["true"], { flags });
      assert.notEqual(outcome.code, 0);
      for (const name of named) assert.match(outcome.stderr, name);
      await world.untilNoVm();
      assert.deepEqual((await world.containerd.ctr(["task", "ls", "-q"])).trim(), "");
      await world.containerd.tryCtr(["container", "rm", "bad"]);
    });
  }

  it("config.json without a process: an error that names the field", async () => {
    const spec = join(world.folder, "spec.json");
    const path = join(world.folder, "rootfs");
    mkdirSync(join(path, "bin"), { recursive: true });
    writeFileSync(spec, JSON.stringify({ ociVersion: "1.0.2", root: { path }, linux: {} }));
    const { containerd } = world;
    const outcome = await containerd.tryCtr(["run", "--rm", "--runtime", RUNTIME, "--config", spec, "nospec"]);
    assert.notEqual(outcome.code, 0);
    assert.match(outcome.stderr, /process/);
    await containerd.tryCtr(["container", "rm", "nospec"]);
  });

  it("an exec id that is taken: an error that names it, and the first exec goes on", async () => {
    const { containerd } = world;
    await containerd.ctr(["run", "-d", "--runtime", RUNTIME, BUSYBOX, "dup", "sleep", "1000"]);
    const first = containerd.startCtr([
      "task",
      "exec",
      "--exec-id",
      "taken",
      "dup",
      "sh",
      "-c",
      "echo up; sleep 5; exit 6",
    ]);
    while (first.output() === "") await new Promise((r) => setTimeout(r, 50));
    const second = await containerd.tryCtr(["task", "exec", "--exec-id", "taken", "dup", "true"]);
    assert.notEqual(second.code, 0);
    assert.match(second.stderr, /taken/);
    assert.equal((await first.done).code, 6);
    const checkpoint = await containerd.tryCtr(["task", "checkpoint", "dup"]);
    assert.notEqual(checkpoint.code, 0);
    assert.match(checkpoint.stderr, /checkpoint/i);
    await containerd.endTask("dup");
  });

  it("a full guest disk names itself to the container that fills it and to the next, and the node stays well", async () => {
    const cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    const pod = await cri.runPod({ name: "full" });
    const greedy = await cri.startContainer(pod, { name: "greedy", image: BUSYBOX, command: ["sleep", "1000"] });
    // Reserved first, so that this machine's disk is not written full as well.
    const fill = `
      for s in 1G 64M 1M; do i=0; while fallocate -l $s /$s.$i; do i=$((i+1)); done; done 2>/dev/null
      dd if=/dev/zero of=/last bs=4k`;
    try {
      const filled = await cri.execSync(greedy, ["sh", "-c", fill]);
      assert.notEqual(filled.exitCode, 0);
      assert.match(filled.stderr, /No space left on device/);
      const next = cri.startContainer(pod, { name: "next", image: DEBIAN, command: ["true"] });
      await assert.rejects(next, /guest disk full/);
    } finally {
      await cri.close();
    }
    assert.equal((await world.containerd.runContainer("after", BUSYBOX, ["true"])).code, 0);
  });

  it("pods that ask for the host's namespaces fail and say which", async () => {
    const cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    await assert.rejects(cri.runPod({ name: "net", hostNetwork: true }), /hostNetwork/);
    await assert.rejects(cri.runPod({ name: "pid", hostPid: true }), /hostPID/);
    await assert.rejects(cri.runPod({ name: "ipc", hostIpc: true }), /hostIPC/);
    await cri.close();
    await world.untilNoVm();
  });
});

describe("a VM that never comes up", () => {
  it("ends in an error that says so and names the remedy; the VM is gone", async () => {
    const world = await World.start({ shim: { connectTimeoutMs: 1500 } });
    const outcome = await world.containerd.runContainer("never", BUSYBOX, ["true"]);
    assert.notEqual(outcome.code, 0);
    assert.match(outcome.stderr, /1500 ms|1\.5 s|console/);
    await world.untilNoVm();
    await world.close();
  });
});
