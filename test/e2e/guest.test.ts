import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { withDeadline } from "../../src/base/call.ts";
import { CONSOLE_KEY_PREFIX, STREAM_OFFSET } from "../../src/guestwire/index.ts";
import { spkiFingerprint } from "../../src/identity/index.ts";
import { Code } from "../../src/ttrpc/index.ts";
import { readConsole } from "../../src/vmm/index.ts";
import { GuestVm } from "../support/guest-vm.ts";
import { buildVmImage, CACHE, VM_IMAGE } from "./harness/images.ts";

/** The guest alone: what the reference agent does in a real VM, asked over the relay, without a shim or containerd. */
describe("the guest", () => {
  let vm: GuestVm;
  before(async () => {
    await buildVmImage();
    vm = await GuestVm.boot(VM_IMAGE, CACHE, { diskGiB: 12 });
    await vm.agent.createSandbox({
      ...{ hostname: "the-pod", dns: [], storages: [], sandboxPidns: false, sandboxId: "s" },
      ...{ guestHookPath: "", kernelModules: [] },
    });
    await vm.run("main", ["sleep", "1000000"]);
  });
  after(() => vm[Symbol.asyncDispose]());

  it("shows its key's fingerprint on the console, and leaves most of the memory and the whole disk to the pod", async () => {
    const console = (await readConsole(join(vm.fixture.dir, "vm"), 1 << 20)) ?? "";
    const csr = vm.fixture.csrs[0] ?? "";
    assert.ok(console.includes(`${CONSOLE_KEY_PREFIX}${spkiFingerprint(csr)}`), console);
    const info = await vm.guest.info({});
    const mib = (bytes: bigint): number => Number(bytes / (1n << 20n));
    assert.ok(mib(info.guestProcessRssBytes) < 100, `agent and forwarder use ${mib(info.guestProcessRssBytes)} MiB`);
    assert.ok(mib(info.memoryAvailableBytes) > 350, `${mib(info.memoryAvailableBytes)} of 512 MiB are available`);
    assert.ok(mib(info.diskTotalBytes) > 11_500, `the disk of 12 GiB has ${mib(info.diskTotalBytes)} MiB`);
    assert.equal(info.bootId, vm.facts.bootId);
  });

  it("passes exit codes and both outputs of containers on, in a cgroup and namespaces of their own", async () => {
    const script = "echo out; echo err >&2; hostname; cat /proc/self/cgroup /proc/self/oom_score_adj; exit 37";
    const ended = await vm.shell("c1", script);
    assert.deepEqual(ended, { out: "out\nthe-pod\n0::/\n0\n", err: "err\n", code: 37 });
    const reopened = await vm.shell("c2", "echo a >/dev/stdout; echo b >/dev/stderr", { uid: 1000 });
    assert.deepEqual(reopened, { out: "a\n", err: "b\n", code: 0 });
  });

  it("shares network, IPC and host name between containers, and PIDs only when asked", async () => {
    const script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done";
    await vm.exec("main", "n", ["sh", "-c", script]);
    const first = (await vm.output("main", "n")).split("\n");
    const second = (await vm.shell("n2", script)).out.split("\n");
    assert.deepEqual(first.slice(0, 3), second.slice(0, 3));
    assert.notEqual(first[3], second[3]);
    const { out } = await vm.shell("n3", "ps -o args", { sandboxPidns: true });
    assert.match(out, /^sleep 1000000$/m);
    await vm.run("server", ["sh", "-c", "echo hello | nc -l -p 8080"]);
    const answer = "until nc 127.0.0.1 8080 </dev/null 2>/dev/null; do sleep 0.1; done";
    assert.equal((await vm.shell("client", answer)).out, "hello\n");
    await vm.remove("server");
  });

  it("runs more processes, each with its own exit code, and says why one cannot start", async () => {
    const runs = Array.from({ length: 5 }, async (_, n) => {
      await vm.exec("main", `e${n}`, ["sh", "-c", `cat /proc/self/oom_score_adj; exit ${n}`], { oomScoreAdj: 100 + n });
      assert.equal(await vm.output("main", `e${n}`), `${100 + n}\n`);
      assert.equal(await vm.status("main", `e${n}`), n);
      assert.equal(await vm.status("main", `e${n}`), n, "asked again");
    });
    await Promise.all(runs);
    await assert.rejects(
      vm.exec("main", "m1", ["no-such-program"]),
      /"no-such-program": executable file not found in \$PATH/,
    );
    await assert.rejects(vm.exec("main", "m2", ["/etc/passwd"]), /permission denied/);
    await assert.rejects(vm.exec("none", "m3", ["true"]), { code: Code.notFound });
    await assert.rejects(vm.run("bad", ["no-such-program"]), /executable file not found/);
    await assert.rejects(vm.status("bad"), { code: Code.notFound }, "nothing is left of it");
  });

  it("gives a terminal its size, its input and its end", async () => {
    await vm.exec("main", "tty", ["sh"], { terminal: true });
    const write = (text: string) =>
      vm.agent.writeStdin({ containerId: "main", execId: "tty", data: Buffer.from(text) });
    let out = "";
    const until = async (wanted: RegExp): Promise<void> => {
      while (!wanted.test(out)) {
        const { data } = await vm.agent.readStdout({ containerId: "main", execId: "tty", len: 4096 });
        assert.ok(data.length > 0, `the terminal ended before ${wanted}: ${out}`);
        out += data.toString();
      }
    };
    await write("stty size\n");
    await until(/24 80/);
    await vm.agent.ttyWinResize({ containerId: "main", execId: "tty", row: 50, column: 120 });
    await write("stty size\n");
    await until(/50 120/);
    await write("exit 9\n");
    assert.equal(await vm.status("main", "tty"), 9);
    await vm.output("main", "tty");
  });

  it("carries bytes both ways over connections that break, none lost, none twice", async () => {
    await vm.run("cat", ["cat"]);
    const sent = randomBytes(3_000_000);
    const offset = (n: number) => ({ metadata: [[STREAM_OFFSET, String(n)]] as const });
    const write = async (): Promise<void> => {
      for (let at = 0; at < sent.length; at += 65_536) {
        const data = sent.subarray(at, at + 65_536);
        await vm.agent.writeStdin({ containerId: "cat", execId: "cat", data }, offset(at));
      }
      await vm.agent.closeStdin({ containerId: "cat", execId: "cat" });
    };
    const parts: Buffer[] = [];
    const read = async (): Promise<void> => {
      for (let at = 0; ; ) {
        const { data } = await vm.agent.readStdout({ containerId: "cat", execId: "cat", len: 32_768 }, offset(at));
        if (data.length === 0) return;
        parts.push(data);
        at += data.length;
        if (parts.length % 20 === 0) vm.proxy.cut();
      }
    };
    await Promise.all([write(), read()]);
    const sum = (data: Buffer): string => createHash("sha256").update(data).digest("hex");
    assert.equal(sum(Buffer.concat(parts)), sum(sent));
    assert.equal(await vm.status("cat"), 0);
    await vm.remove("cat");
  });

  it("stops processes as Kata's agent does: 128 + signal, SIGKILL for an init that ignores SIGTERM, not_found afterwards", async () => {
    const signal = (containerId: string, execId: string, number: number) =>
      vm.agent.signalProcess({ containerId, execId, signal: number });
    await vm.run("deaf", ["sleep", "1000"]);
    await signal("deaf", "deaf", 15);
    assert.equal(await vm.status("deaf"), 137);
    await assert.rejects(signal("deaf", "", 9), { code: Code.notFound });
    await vm.run("polite", ["sh", "-c", "trap 'exit 44' TERM; echo ready; while :; do sleep 0.1; done"]);
    await vm.agent.readStdout({ containerId: "polite", execId: "polite", len: 10 });
    await vm.exec("polite", "x", ["sleep", "1000"]);
    await signal("polite", "x", 15);
    assert.equal(await vm.status("polite", "x"), 143);
    await signal("polite", "", 15);
    assert.equal(await vm.status("polite"), 44);
    await vm.run("many", ["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    await vm.exec("many", "x", ["sleep", "1000"]);
    await signal("many", "", 9);
    assert.deepEqual([await vm.status("many"), await vm.status("many", "x")], [137, 137]);
    for (const id of ["deaf", "polite", "many"]) await vm.remove(id);
    await assert.rejects(signal("many", "", 9), { code: Code.notFound });
  });

  it("keeps containers to their memory, and tells which one was killed for it", async () => {
    const event = vm.agent.getOOMEvent({});
    const ended = await vm.shell("greedy", "cat /sys/fs/cgroup/memory.max; tail /dev/zero", {
      memoryLimitBytes: 20 << 20,
    });
    assert.deepEqual([ended.out, ended.code], [`${20 << 20}\n`, 137]);
    assert.equal((await event).containerId, "greedy");
    assert.equal((await vm.shell("unlimited", "tail /dev/zero")).code, 137, "a container without a limit");
    assert.equal((await vm.shell("after", "echo alive")).out, "alive\n");
    const { cgroupStats } = await vm.agent.statsContainer({ containerId: "main" });
    assert.ok((cgroupStats?.memoryStats?.usage?.usage ?? 0n) > 0n);
    assert.equal(cgroupStats?.pidsStats?.current, 1n);
  });

  it("freezes and thaws", async () => {
    await vm.run("ticks", ["sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    await vm.agent.pauseContainer({ containerId: "ticks" });
    let ticked = false;
    const drained = (async () => {
      await vm.agent.readStdout({ containerId: "ticks", execId: "ticks", len: 1 << 20 });
      await vm.agent.readStdout({ containerId: "ticks", execId: "ticks", len: 1 << 20 });
      ticked = true;
    })();
    await delay(700);
    assert.equal(ticked, false);
    await vm.agent.resumeContainer({ containerId: "ticks" });
    await drained;
    await vm.remove("ticks");
  });

  it("lets no container at the guest's own disk", async () => {
    const { out, err } = await vm.shell(
      "devices",
      "mknod /tmp/vda b 254 0 && dd if=/tmp/vda count=1; head -c4 /dev/urandom | wc -c",
    );
    assert.match(err, /Operation not permitted/);
    assert.equal(out, "4\n");
  });

  it("gives containers the files that the node copied", async () => {
    const path = "/run/kata-containers/shared/containers/c-0123456789abcdef-hosts";
    const data = Buffer.from("10.0.0.1 peer\n");
    const owner = { uid: 0, gid: 0, fileMode: 0o100644, dirMode: 0o40750 };
    await vm.agent.copyFile({ path, data, fileSize: BigInt(data.length), offset: 0n, ...owner });
    const { out } = await vm.shell("hosts", "cat /etc/hosts", {
      mounts: [{ destination: "/etc/hosts", source: path }],
    });
    assert.equal(out, data.toString());
  });

  it("names the full disk", async () => {
    const fill = "fallocate -l $(( $(df -k / | tail -1 | awk '{print $4}') - 2000 ))k /fill && echo full; sleep 1000";
    await vm.run("filler", ["sh", "-c", fill]);
    const { data } = await vm.agent.readStdout({ containerId: "filler", execId: "filler", len: 100 });
    assert.equal(data.toString(), "full\n");
    const tree = mkdtempSync(join(vm.fixture.dir, "large-"));
    writeFileSync(join(tree, "file"), randomBytes(6_000_000));
    await assert.rejects(vm.sendTree("large", tree, withDeadline(60_000)), /guest disk full: \d+ MiB free of \d+ MiB/);
    await vm.remove("filler");
    await vm.sendTree("large", tree, withDeadline(60_000));
  });

  it("runs 40 short containers without keeping anything of them", async () => {
    const before = (await vm.guest.info({})).diskAvailableBytes;
    for (let n = 0; n < 40; n += 1) assert.equal((await vm.shell(`short-${n}`, `exit ${n}`)).code, n);
    const zombies = "grep -l '^State:.Z' /guest/[0-9]*/status | wc -l";
    const guestProc = { destination: "/guest", source: "/proc" };
    assert.equal((await vm.shell("zombies", zombies, { mounts: [guestProc] })).out, "0\n");
    const lost = before - (await vm.guest.info({})).diskAvailableBytes;
    assert.ok(lost < 1n << 20n, `${lost} bytes of the disk are gone`);
  });

  it("takes less than 60 MB once it has been quiet for a moment", async () => {
    const megabytes = async (): Promise<number> => Number((await vm.guest.info({})).guestProcessRssBytes) / 1e6;
    const sizes = [await megabytes()];
    while ((sizes.at(-1) ?? 0) >= 60 && sizes.length < 40) {
      await delay(500);
      sizes.push(await megabytes());
    }
    assert.ok((sizes.at(-1) ?? 0) < 60, `agent and forwarder take ${sizes.map(Math.round).join(", ")} MB`);
  });

  it("switches off when the sandbox is destroyed", async () => {
    vm.fixture.relay.guestLost(vm.fixture.sandboxId).catch(() => undefined);
    await Promise.race([vm.agent.destroySandbox({}).catch(() => undefined), vm.off()]);
    await vm.off();
  });
});
