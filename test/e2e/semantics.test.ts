import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { withDeadline } from "../../src/base/call.ts";
import { SecurityProfile_ProfileType } from "../../src/gen/cri/runtime/v1/api.ts";
import { type ContainerOptions, Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { PodCgroup } from "./harness/pod-cgroup.ts";
import { until } from "./harness/processes.ts";
import { ChannelSocket } from "./harness/streaming.ts";
import { World } from "./harness/world.ts";

const MIB = 1 << 20;
const SLEEP = ["sleep", "100000"];
const STDIN = 0;
const STDOUT = 1;
const CAP_NET_ADMIN = "0000000000001000";

describe("what a pod means by its settings", () => {
  let world: World;
  let cri: Cri;
  let pod: string;
  let main: string;
  let cgroup: PodCgroup;
  const page = "from the pod's localhost\n".repeat(20_000);

  before(async () => {
    world = await World.start({ network: "tap", shimOf: (folder) => ({ managementDir: join(folder, "vc") }) });
    cgroup = PodCgroup.make();
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    const sysctls = { "kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "2000 65000" };
    pod = await cri.runPod({ name: "meaning", sharePid: true, sysctls, cgroupParent: cgroup.path });
    main = await start("main", SLEEP);
  });
  after(async () => {
    await cri.close();
    await world.untilNoVm();
    cgroup.remove();
    assert.deepEqual(world.leftovers(), []);
    await world.close();
  });

  function start(name: string, command: readonly string[], more: Partial<ContainerOptions> = {}): Promise<string> {
    return cri.startContainer(pod, { name, image: BUSYBOX, command, ...more });
  }

  async function sh(id: string, script: string): Promise<string> {
    const answer = await cri.execSync(id, ["sh", "-c", script]);
    assert.equal(answer.exitCode, 0, `${script}: ${answer.stderr}${answer.stdout}`);
    return answer.stdout.trim();
  }

  const ended = (id: string): Promise<number> => until("its end", 90_000, () => cri.exitCode(id));

  it("sysctls hold in every container of the pod", async () => {
    assert.equal(await sh(main, "cat /proc/sys/kernel/shm_rmid_forced"), "1");
    assert.equal(await sh(main, "cat /proc/sys/net/ipv4/ip_local_port_range"), "2000\t65000");
  });

  it("a shared process namespace shows the pod's processes to each of its containers", async () => {
    const other = await start("other", ["sleep", "4242"]);
    assert.match(await sh(main, "ps -o args"), /sleep 4242/);
    assert.notEqual(await sh(other, "cat /proc/1/comm"), "sleep");
    await cri.stopContainer(other, 0);
  });

  it("a container comes again under its name while a sidecar goes on", async () => {
    const sidecar = await start("sidecar", SLEEP);
    for (const attempt of [0, 1, 2]) {
      const id = await start("again", ["sh", "-c", `[ ! -e /left ] || exit 9; touch /left; exit ${attempt}`], {
        attempt,
      });
      assert.equal(await ended(id), attempt, "nothing of the one before is left");
      await cri.removeContainer(id);
    }
    assert.equal(await sh(sidecar, "echo lives"), "lives");
    await cri.stopContainer(sidecar, 0);
  });

  it("seccomp profiles and capabilities are those of the spec", async () => {
    const profile = join(world.folder, "no-mkdir.json");
    const syscalls = [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 1 }];
    writeFileSync(profile, JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls }));
    const id = await start("confined", SLEEP, {
      security: {
        seccomp: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef: profile },
        capabilities: { dropCapabilities: ["ALL"], addCapabilities: ["NET_ADMIN"] },
        noNewPrivs: true,
      },
    });
    const refused = await cri.execSync(id, ["mkdir", "/x"]);
    assert.match(refused.stderr, /Operation not permitted/);
    const status = await sh(id, "cat /proc/1/../self/status");
    assert.match(status, new RegExp(`^CapEff:\\s+${CAP_NET_ADMIN}$`, "m"));
    assert.match(status, /^NoNewPrivs:\s+1$/m);
    assert.match(status, /^Seccomp:\s+2$/m);
    const free = await start("free", SLEEP, {
      security: { seccomp: { profileType: SecurityProfile_ProfileType.Unconfined } },
    });
    assert.match(await sh(free, "cat /proc/self/status"), /^Seccomp:\s+0$/m);
    for (const c of [id, free]) await cri.stopContainer(c, 0);
  });

  it("a container whose process is killed for memory is OOMKilled with 137", async () => {
    const id = await start("hungry", ["sh", "-c", "sleep 1; exec tail -c 200000000 /dev/zero"], {
      memoryLimitBytes: 32 * MIB,
    });
    assert.equal(await ended(id), 137);
    await until("the reason", 60_000, async () => (await cri.status(id)).reason === "OOMKilled");
  });

  it("an exec of a missing program fails in under a second, in kubelet's words", async () => {
    const times: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      const began = performance.now();
      await assert.rejects(cri.execSync(main, ["/no/such/probe"]), /no such file or directory/);
      await assert.rejects(cri.execSync(main, ["probe"]), /"probe": executable file not found in \$PATH/);
      times.push((performance.now() - began) / 2);
    }
    const began = performance.now();
    assert.equal((await cri.execSync(main, ["true"])).exitCode, 0);
    const usual = performance.now() - began;
    console.log(
      `exec of a missing program fails after ${times.map(Math.round).join(", ")} ms; true: ${Math.round(usual)}`,
    );
    // On a busy machine with an emulated VM every exec takes seconds: then it is no slower than one that works.
    assert.ok(Math.min(...times) < Math.max(1_000, 1.5 * usual), `${times.join()}; ${usual}`);
  });

  it("attach joins a running container's streams", async () => {
    const script = "while read line; do echo got $line; done; echo end of input";
    const id = await start("reads", ["sh", "-c", script], { stdin: true });
    const { url } = await cri.runtime.attach(
      { containerId: id, stdin: true, stdout: true, stderr: true, tty: false },
      withDeadline(60_000),
    );
    const stream = await ChannelSocket.open(url);
    stream.send(STDIN, "hello\n");
    await until("an answer", 60_000, () => stream.received(STDOUT).toString().includes("got hello"));
    stream.close();
    await cri.stopContainer(id, 0);
  });

  it("port-forward reaches what listens on the pod's localhost only", async () => {
    const dir = join(world.folder, "page");
    mkdirSync(dir);
    writeFileSync(join(dir, "index.html"), page);
    await start("server", ["httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/page"], {
      mounts: [{ containerPath: "/page", hostPath: dir, readonly: true }],
    });
    const { url } = await cri.runtime.portForward({ podSandboxId: pod, port: [8080] }, withDeadline(60_000));
    const began = performance.now();
    const stream = await ChannelSocket.open(`${url}?port=8080`);
    stream.send(0, "GET /index.html HTTP/1.0\r\n\r\n");
    // Each channel begins with the port.
    const answer = (): string => stream.received(0).subarray(2).toString();
    await until("the page", 60_000, () => answer().length >= page.length && answer().endsWith(page), answer);
    console.log(`${page.length} bytes came by port-forward in ${Math.round(performance.now() - began)} ms`);
    const body = answer().slice(answer().indexOf("\r\n\r\n") + 4);
    assert.equal(md5(body), md5(page));
    stream.close();
    const nobody = await cri.runtime.portForward({ podSandboxId: pod, port: [81] }, withDeadline(60_000));
    const refused = await ChannelSocket.open(`${nobody.url}?port=81`);
    refused.send(0, "x");
    await until("the connection to end", 60_000, () => refused.closed || refused.received(1).length > 2);
  });

  it("logs go on in a new file after a rotation", async () => {
    const id = await start("talks", ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"]);
    const log = cri.logPath("talks");
    await until("output", 60_000, () => readFileSync(log, "utf8").includes("line 3"));
    renameSync(log, `${log}.1`);
    await cri.runtime.reopenContainerLog({ containerId: id }, withDeadline(60_000));
    const lines = (path: string): number[] =>
      [...readFileSync(path, "utf8").matchAll(/ line (\d+)/g)].map(([, n]) => Number(n));
    await until("more output", 60_000, () => lines(log).length >= 3);
    await cri.stopContainer(id, 0);
    const all = [...lines(`${log}.1`), ...lines(log)];
    assert.deepEqual(
      all,
      all.map((_, i) => i + 1),
      "nothing is lost or doubled",
    );
  });

  it("resources change while it runs, and its figures say what it takes", async () => {
    const id = await start("busy", ["sh", "-c", "while :; do :; done"], { memoryLimitBytes: 64 * MIB });
    const linux = { memoryLimitInBytes: BigInt(48 * MIB), cpuQuota: 20_000n, cpuPeriod: 100_000n };
    await cri.runtime.updateContainerResources({ containerId: id, linux }, withDeadline(60_000));
    assert.equal(await sh(id, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"), `${48 * MIB}\n20000 100000`);
    const stats = async () => (await cri.runtime.containerStats({ containerId: id }, withDeadline(60_000))).stats;
    const cpu = async (): Promise<number> => Number((await stats())?.cpu?.usageCoreNanoSeconds?.value ?? 0n);
    const first = await cpu();
    await until("more processor time", 60_000, async () => (await cpu()) > first);
    assert.ok(Number((await stats())?.memory?.workingSetBytes?.value ?? 0n) > 0);
    const { stats: list } = await cri.runtime.listContainerStats({}, withDeadline(60_000));
    assert.ok(list.some((s) => s.attributes?.id === id && Number(s.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0));
    await cri.stopContainer(id, 0);
  });

  it("an exec probe that takes too long fails at its time-out, and what it ran is gone", async () => {
    const probe = { containerId: main, cmd: ["sleep", "7777"], timeout: 2n };
    await assert.rejects(cri.runtime.execSync(probe, withDeadline(90_000)), /timeout|deadline|timed out/i);
    await until("the probe to be gone", 60_000, async () => !(await sh(main, "ps -o args")).includes("7777"));
  });

  it("the pod's figures list its containers', from the guest", async () => {
    const { stats } = await cri.runtime.podSandboxStats({ podSandboxId: pod }, withDeadline(60_000));
    const { stats: list } = await cri.runtime.listPodSandboxStats({ filter: { id: pod } }, withDeadline(60_000));
    for (const one of [stats, list[0]]) {
      assert.equal(one?.attributes?.id, pod);
      const figures = one.linux?.containers.find((c) => c.attributes?.id === main);
      assert.ok(Number(figures?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0, "processor time");
      assert.ok(Number(figures?.memory?.workingSetBytes?.value ?? 0n) > 0, "memory");
    }
    assert.ok((stats?.linux?.network?.interfaces.length ?? 0) + (stats?.linux?.network?.defaultInterface ? 1 : 0) > 0);
  });

  it("kata-monitor finds its socket, and is told what is not to be had here", async () => {
    const ask = async (path: string): Promise<string> => {
      const url = `http://shim${path}`;
      const socket = join(world.folder, "vc", pod, "shim-monitor.sock");
      const [response] = (await once(request(url, { socketPath: socket }).end(), "response")) as [IncomingMessage];
      return `${await text(response)} ${response.statusCode}`;
    };
    assert.match(await ask("/metrics"), /kata_(agent|guest)_[\s\S]* 200$/);
    assert.match(await ask("/iptables"), / 501$/);
    assert.match(await ask("/agent-url"), /reached through the node daemon only.* 501$/s);
    assert.match(await ask("/direct-volume/stats?path=x"), /no direct volumes\n 501$/);
  });
});

function md5(text: string): string {
  return createHash("md5").update(text).digest("hex");
}
