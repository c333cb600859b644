import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { KubeletPod } from "../support/kubelet-pod.ts";
import { type ContainerOptions, Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { signal, until } from "./harness/processes.ts";
import { World } from "./harness/world.ts";

const MIB = 1 << 20;
const FS_GROUP = 2000;
const SLEEP = ["sleep", "100000"];

describe("a pod's files and volumes, as kubelet mounts them", () => {
  let world: World;
  let cri: Cri;
  let pod: string;
  let kubelet: KubeletPod;
  let main: string;
  const thousand = (content: string): Record<string, string> =>
    Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`key-${i}`, `${content}\n`]));
  const paths = {
    config: "",
    secret: "",
    token: "",
    big: "",
    disk: "",
    memory: "",
    part: "",
    key: "",
    hosts: "",
    copy: "",
  };

  before(async () => {
    const hostPaths = "allowed";
    world = await World.start({ shimOf: (folder) => ({ hostPaths: [join(folder, hostPaths)] }) });
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    kubelet = new KubeletPod(join(world.folder, "kubelet"), "uid-1");
    paths.hosts = kubelet.etcHosts("127.0.0.1 localhost\n10.0.0.7 db.test\n");
    paths.config = kubelet.volume("configmap", "config", { a: "a1\n", b: "b1\n" });
    paths.secret = kubelet.volume("secret", "secret", { password: "hunter2" }, 0o440);
    paths.token = kubelet.volume("projected", "token", { token: "token-0\n" });
    paths.big = kubelet.volume("configmap", "big", thousand("old"));
    paths.disk = kubelet.emptyDir("disk", { fsGroup: FS_GROUP });
    paths.memory = kubelet.emptyDir("memory", { memoryBytes: 4 * MIB });
    paths.part = kubelet.subPath(paths.disk, "deep/part", "main", 0);
    paths.key = kubelet.subPath(paths.config, "a", "main", 1);
    paths.copy = join(world.folder, hostPaths, "data");
    mkdirSync(paths.copy, { recursive: true });
    writeFileSync(join(paths.copy, "file"), "of the node\n");
    pod = await cri.runPod({ name: "files", uid: "uid-1" });
    main = await start("main", SLEEP, {
      mounts: [
        { containerPath: "/etc/hosts", hostPath: paths.hosts },
        { containerPath: "/config", hostPath: paths.config, readonly: true },
        { containerPath: "/secret", hostPath: paths.secret, readonly: true },
        { containerPath: "/token", hostPath: paths.token, readonly: true },
        { containerPath: "/big", hostPath: paths.big, readonly: true },
        { containerPath: "/disk", hostPath: paths.disk },
        { containerPath: "/memory", hostPath: paths.memory },
        { containerPath: "/part", hostPath: paths.part },
        { containerPath: "/key", hostPath: paths.key, readonly: true },
        { containerPath: "/copy", hostPath: paths.copy },
      ],
    });
  });
  after(async () => {
    await cri.close();
    await world.untilNoVm();
    kubelet.close();
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

  /** Runs on beside what follows, longer than one exec may take. */
  const behind = (id: string, script: string): Promise<string> => sh(id, `{ ${script}; } > /dev/null 2>&1 &`);

  /** Waits for what a script says. @returns ms */
  async function becomes(id: string, script: string, expected: string, patienceMs = 90_000): Promise<number> {
    const began = performance.now();
    const said = async (): Promise<string> => (await cri.execSync(id, ["sh", "-c", script])).stdout.trim();
    await until(`${script} to say ${expected}`, patienceMs, async () => (await said()) === expected);
    return performance.now() - began;
  }

  it("has the pod's hosts, host name, resolv.conf and shared memory", async () => {
    assert.equal(await sh(main, "tail -1 /etc/hosts"), "10.0.0.7 db.test");
    assert.equal(await sh(main, "cat /etc/hostname; hostname"), "files\nfiles");
    assert.match(await sh(main, "cat /etc/resolv.conf"), /nameserver/);
    assert.equal(await sh(main, "df -m /dev/shm | tail -1 | awk '{print $2}'"), "64");
    assert.equal(await sh(main, "echo x > /dev/shm/x && cat /dev/shm/x"), "x");
  });

  it("shows ConfigMaps and Secrets with their modes, read-only", async () => {
    assert.equal(await sh(main, "cat /config/a /config/b /secret/password"), "a1\nb1\nhunter2");
    assert.equal(await sh(main, "stat -L -c '%a %u' /secret/password"), "440 0");
    assert.equal(await sh(main, "ls /big | wc -l"), "1000");
    assert.notEqual((await cri.execSync(main, ["sh", "-c", "echo x > /config/new"])).exitCode, 0);
  });

  it("follows a ConfigMap: changed, new and removed keys; open files stay; a subPath stays", async () => {
    const reader = "exec 3< /config/b; touch /ready; while [ ! -e /go ]; do sleep 0.1; done; cat <&3 > /held";
    await behind(main, reader);
    await becomes(main, "ls /ready", "/ready");
    kubelet.volume("configmap", "config", { a: "a2\n", c: "c2\n" });
    const ms = await becomes(main, "cat /config/a", "a2");
    await becomes(main, "ls /config", "a\nc");
    assert.equal(await sh(main, "cat /config/c; ls -a /config | grep -c '^[.][.]2'"), "c2\n1");
    await sh(main, "touch /go");
    await becomes(main, "cat /held; cat /key", "b1\na1");
    console.log(`a changed ConfigMap is in the guest after at most ${Math.round(ms)} ms`);
  });

  it("turns 1,000 files over at once: no reader sees a mix", async () => {
    const look = 'cat /big/$(readlink /big/..data)/* 2>/dev/null | sort -u | tr "\\n" " "';
    const script = `touch /looking; while [ ! -e /enough ]; do ${look}; echo; done | sort -u > /seen; touch /seen-all`;
    await behind(main, script);
    await becomes(main, "ls /looking", "/looking");
    kubelet.volume("configmap", "big", thousand("new"));
    const ms = await becomes(main, "cat /big/key-0 /big/key-999 | sort -u", "new");
    await sh(main, "sleep 1; touch /enough");
    await becomes(main, "ls /seen-all", "/seen-all");
    const seen = (await sh(main, "cat /seen")).split("\n").map((line) => line.trim());
    assert.deepEqual(
      seen.filter((line) => !["", "old", "new"].includes(line)),
      [],
    );
    assert.ok(seen.includes("new") && seen.includes("old"), seen.join());
    console.log(`1,000 changed files are in the guest after at most ${Math.round(ms)} ms`);
  });

  it("rotates a token 20 times under an open reader", async () => {
    await behind(
      main,
      "exec 3< /token/token; touch /holds; while [ ! -e /let-go ]; do sleep 0.2; done; cat <&3 > /old",
    );
    await becomes(main, "ls /holds", "/holds");
    let slowest = 0;
    for (let i = 1; i <= 20; i += 1) {
      kubelet.volume("projected", "token", { token: `token-${i}\n` });
      slowest = Math.max(slowest, await becomes(main, "cat /token/token", `token-${i}`));
    }
    await sh(main, "touch /let-go");
    await becomes(main, "cat /old", "token-0");
    console.log(`a rotated token is in the guest after at most ${Math.round(slowest)} ms`);
  });

  it("follows on under the next node daemon", async () => {
    signal(world.daemonPid() ?? assert.fail("no daemon runs"), "SIGKILL");
    kubelet.volume("configmap", "config", { a: "a3\n" });
    await becomes(main, "cat /config/a; ls /config", "a3\na");
    kubelet.volume("configmap", "config", { a: "a4\n" });
    await becomes(main, "cat /config/a", "a4");
  });

  it("keeps emptyDirs from container to container, shares parts of them, and bounds those in memory", async () => {
    const mounts = [
      { containerPath: "/d", hostPath: paths.disk },
      { containerPath: "/m", hostPath: paths.memory },
    ];
    const init = await start(
      "init",
      ["sh", "-c", "echo disk > /d/file; echo memory > /m/file; echo p > /d/deep/part/f"],
      {
        mounts,
      },
    );
    assert.equal(await until("its end", 60_000, () => cri.exitCode(init)), 0);
    await cri.removeContainer(init);
    assert.equal(await sh(main, "cat /disk/file /memory/file /part/f"), "disk\nmemory\np");
    assert.equal(await sh(main, "df -m /memory | tail -1 | awk '{print $2}'"), "4");
    assert.match(
      (await cri.execSync(main, ["sh", "-c", "dd if=/dev/zero of=/memory/large bs=65536 count=80"])).stderr,
      /No space left/,
    );
    assert.notEqual(await sh(main, "stat -f -c %T /disk"), "tmpfs", "it is on the VM's disk");
    // Mounted on the node after its daemon has got mounts of its own.
    const late = [
      { containerPath: "/late", hostPath: kubelet.volume("secret", "late", { key: "late" }), readonly: true },
      { containerPath: "/small", hostPath: kubelet.emptyDir("small", { memoryBytes: 2 * MIB }) },
    ];
    const user = await start("user", SLEEP, {
      mounts: [...mounts, ...late],
      security: { runAsUser: { value: 1000n }, runAsGroup: { value: 1000n }, supplementalGroups: [BigInt(FS_GROUP)] },
    });
    assert.equal(await sh(user, "cat /late/key; df -m /small | tail -1 | awk '{print $2}'"), "late2");
    assert.equal(await sh(user, "id -u; id -g; id -G"), "1000\n1000\n1000 2000");
    assert.equal(
      await sh(user, "stat -c '%g %a' /d; touch /d/mine && stat -c '%u %g' /d/mine"),
      "2000 2777\n1000 2000",
    );
  });

  it("brings the termination message back before the end is known", async () => {
    const log = kubelet.terminationLog("dies");
    const id = await start("dies", ["sh", "-c", "echo -n 'out of cheese' > /dev/termination-log; exit 3"], {
      mounts: [{ containerPath: "/dev/termination-log", hostPath: log }],
    });
    assert.equal(await until("its end", 60_000, () => cri.exitCode(id)), 3);
    assert.equal(readFileSync(log, "utf8"), "out of cheese");
  });

  it("copies a hostPath that the node's configuration lists, and refuses any other by name", async () => {
    assert.equal(await sh(main, "cat /copy/file; echo changed > /copy/file"), "of the node");
    assert.equal(readFileSync(join(paths.copy, "file"), "utf8"), "of the node\n");
    const mounts = [{ containerPath: "/x", hostPath: join(world.folder, "logs") }];
    await assert.rejects(start("refused", SLEEP, { mounts }), /mounts\[\d+\]\.source = ".*\/logs": .*shim\.hostPaths/);
  });

  it("has a read-only root where that is asked for", async () => {
    const id = await start("read-only", SLEEP, {
      security: { readonlyRootfs: true },
      mounts: [{ containerPath: "/d", hostPath: paths.disk }],
    });
    assert.match((await cri.execSync(id, ["touch", "/x"])).stderr, /Read-only file system/);
    assert.equal(await sh(id, "touch /d/x && echo written"), "written");
  });

  it("frees the disk of a container that is removed", async () => {
    const used = async (): Promise<number> => Number(await sh(main, "df -m / | tail -1 | awk '{print $3}'"));
    const before = await used();
    const id = await start("fills", ["sh", "-c", "head -c 62914560 /dev/zero > /file; sync; sleep 100000"]);
    await until("the file to be there", 90_000, async () => (await used()) >= before + 55);
    await cri.stopContainer(id, 0);
    await cri.removeContainer(id);
    await until("the space to be free again", 60_000, async () => (await used()) <= before + 5);
  });
});
