import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { until } from "./harness/processes.ts";
import { chosenProvider } from "./harness/test-cloud.ts";
import { World } from "./harness/world.ts";

const MIB = 1 << 20;

describe("the CRI plugin, as a kubelet drives it", () => {
  let world: World;
  let cri: Cri;
  let pod: string;
  before(async () => {
    world = await World.start({ provider: chosenProvider() });
    cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    pod = await cri.runPod({ name: "pod" });
  });
  after(async () => {
    await cri.close();
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
    await world.close();
  });

  it("runs two containers in one VM that share localhost and nothing else", async () => {
    const page = join(world.folder, "page");
    mkdirSync(page);
    writeFileSync(join(page, "index.html"), "served from the other container\n");
    const server = await cri.startContainer(pod, {
      name: "server",
      image: BUSYBOX,
      command: ["httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/page"],
      mounts: [{ containerPath: "/page", hostPath: page, readonly: true }],
    });
    const client = await cri.startContainer(pod, { name: "client", image: BUSYBOX, command: ["sleep", "1000"] });
    assert.equal(world.vms().length, 1);
    const got = await until("the server to answer", 60_000, async () => {
      const answer = await cri.execSync(client, ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"]);
      return answer.exitCode === 0 ? answer.stdout : undefined;
    });
    assert.equal(got, "served from the other container\n");
    await cri.execSync(client, ["sh", "-c", "echo mine > /file"]);
    assert.notEqual((await cri.execSync(server, ["cat", "/file"])).exitCode, 0, "root file systems are apart");
    assert.doesNotMatch((await cri.execSync(client, ["ps"])).stdout, /httpd/, "process ids are apart");
  });

  it("gives an exec's streams and exit code", async () => {
    const id = await cri.startContainer(pod, {
      name: "exec",
      image: BUSYBOX,
      command: ["sleep", "1000"],
      envs: { A: "b c" },
    });
    const answer = await cri.execSync(id, ["sh", "-c", 'echo "$A"; echo wrong >&2; exit 3']);
    assert.deepEqual(answer, { stdout: "b c\n", stderr: "wrong\n", exitCode: 3 });
  });

  it("writes the container's log", async () => {
    const command = ["sh", "-c", "echo first; echo second >&2; exit 4"];
    const id = await cri.startContainer(pod, { name: "talks", image: BUSYBOX, command });
    assert.equal(await until("its end", 60_000, () => cri.exitCode(id)), 4);
    // containerd writes it from two pipes, beside telling of the end.
    const lines = await until("both lines in the log", 60_000, () => {
      const all = readFileSync(cri.logPath("talks"), "utf8").trim().split("\n");
      return all.length === 2 && all;
    });
    assert.deepEqual(lines.map((l) => l.split(" ").slice(1).join(" ")).sort(), ["stderr F second", "stdout F first"]);
  });

  it("stops a container in its grace time, and one that ignores it after that", async () => {
    const polite = await cri.startContainer(pod, {
      name: "polite",
      image: BUSYBOX,
      command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
    });
    const deaf = await cri.startContainer(pod, {
      name: "deaf",
      image: BUSYBOX,
      command: ["sh", "-c", "trap : TERM; while :; do sleep 0.1; done"],
    });
    await cri.stopContainer(polite, 20);
    assert.equal(await cri.exitCode(polite), 0);
    const started = performance.now();
    await cri.stopContainer(deaf, 2);
    assert.equal(await cri.exitCode(deaf), 137);
    assert.ok(performance.now() - started >= 2000, "its grace time is given");
  });

  it("counts a container's memory and ends one that takes more than its limit", async () => {
    const id = await cri.startContainer(pod, {
      name: "hungry",
      image: BUSYBOX,
      command: ["sh", "-c", "sleep 3; tail -c 200000000 /dev/zero | wc -c; sleep 1000"],
      memoryLimitBytes: 32 * MIB,
    });
    assert.ok((await cri.containerMemoryBytes(id)) > 0);
    await until("the out-of-memory kill to show", 60_000, async () => {
      const { stdout } = await cri.execSync(id, ["sh", "-c", "ps | grep -c '[t]ail'"]);
      return stdout.trim() === "0";
    });
  });
});
