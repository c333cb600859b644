import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { afterEach, beforeEach, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { isAlive, signal, until } from "./harness/processes.ts";
import { World } from "./harness/world.ts";

const MINUTE = 60_000;

describe("when something dies", () => {
  let world: World;
  beforeEach(async () => {
    world = await World.start();
  });
  afterEach(() => world.close());

  const startPod = (id: string) =>
    world.containerd.ctr([
      "run",
      "-d",
      "--runtime",
      RUNTIME,
      BUSYBOX,
      id,
      "sh",
      "-c",
      "trap 'exit 7' TERM; while :; do sleep 0.2; done",
    ]);
  const nextPodWorks = async () => {
    const { code, stdout, stderr } = await world.containerd.runContainer("next", BUSYBOX, ["echo", "fine"], {
      timeoutMs: 180_000,
    });
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "fine\n" }, stderr);
  };

  it("containerd: pods run on and are attached again", async () => {
    await startPod("keep");
    const [vm] = world.vms();
    for (const how of ["SIGTERM", "SIGKILL"] as const) {
      await world.containerd.restart(how);
      assert.equal(await world.containerd.taskStatus("keep"), "RUNNING", how);
      const { stdout } = await world.containerd.tryCtr(["task", "exec", "--exec-id", how, "keep", "echo", how]);
      assert.equal(stdout, `${how}\n`);
    }
    assert.equal(world.vms()[0]?.pid, vm?.pid);
    assert.equal(await world.containerd.endTask("keep", "SIGTERM"), 7);
    await world.untilNoVm();
  });

  it("the node daemon: no pod notices, the next daemon goes on", async () => {
    await startPod("a");
    await startPod("b");
    const vms = world.vms().map((vm) => vm.pid);
    const relay = world.relayPid();
    const events = world.containerd.startCtr(["events"]);
    for (let round = 0; round < 2; round++) {
      const daemon = world.daemonPid();
      assert.ok(daemon !== undefined && relay !== undefined);
      signal(daemon, "SIGKILL");
      // Asked while there is no daemon: the call waits for the next one.
      const { stdout, code, stderr } = await world.containerd.tryCtr([
        "task",
        "exec",
        "--exec-id",
        `e${round}`,
        "a",
        "echo",
        "on",
      ]);
      assert.deepEqual({ stdout, code, stderr }, { stdout: "on\n", code: 0, stderr: "" });
      // containerd itself waits 2 s for a state and says UNKNOWN then.
      for (const id of ["a", "b"])
        await until(`${id} to run`, 60_000, async () => (await world.containerd.taskStatus(id)) === "RUNNING");
      assert.notEqual(world.daemonPid(), daemon);
      assert.equal(world.relayPid(), relay);
    }
    assert.deepEqual(
      world.vms().map((vm) => vm.pid),
      vms,
    );
    assert.doesNotMatch(events.output(), /TaskExit.*"container_id":"[ab]","id":"[ab]"/);
    assert.equal(await world.containerd.endTask("a", "SIGTERM"), 7);
    assert.equal(await world.containerd.endTask("b", "SIGTERM"), 7);
    events.child.kill();
    await world.untilNoVm();
    await nextPodWorks();
  });

  it("the relay: containerd hears of the exits, VMs and mounts go, the next pod works", async () => {
    await startPod("a");
    await startPod("b");
    const daemon = world.relayPid();
    assert.ok(daemon !== undefined && world.vms().length === 2);
    signal(daemon, "SIGKILL");
    await until("both exits", MINUTE, async () => {
      const states = [await world.containerd.taskStatus("a"), await world.containerd.taskStatus("b")];
      return states.every((s) => s === undefined || s === "STOPPED");
    });
    await world.untilNoVm(MINUTE);
    assert.deepEqual(world.leftovers(), []);
    for (const id of ["a", "b"]) await world.containerd.tryCtr(["container", "rm", id]);
    await nextPodWorks();
    assert.notEqual(world.relayPid(), daemon);
  });

  it("the adaptor: nobody notices", async () => {
    await startPod("calm");
    await world.stopAdaptor("SIGKILL");
    for (let i = 0; i < 5; i++) {
      const { stdout, code } = await world.containerd.tryCtr([
        "task",
        "exec",
        "--exec-id",
        `e${i}`,
        "calm",
        "echo",
        "here",
      ]);
      assert.deepEqual({ stdout, code }, { stdout: "here\n", code: 0 });
    }
    assert.equal(await world.containerd.taskStatus("calm"), "RUNNING");
    await world.startAdaptor();
    assert.equal(await world.containerd.taskStatus("calm"), "RUNNING");
    assert.equal(await world.containerd.endTask("calm", "SIGTERM"), 7);
    await world.untilNoVm();
  });

  it("the adaptor before a pod ends: the VM goes once an adaptor is back", async () => {
    await startPod("late");
    await world.stopAdaptor("SIGKILL");
    assert.equal(await world.containerd.endTask("late", "SIGTERM"), 7);
    assert.equal(world.vms().length, 1);
    await world.startAdaptor();
    await world.untilNoVm(MINUTE);
  });

  it("node daemon and adaptor together while a VM starts: no VM is left a minute after", async () => {
    const starting = world.containerd.startCtr(["run", "--rm", "--runtime", RUNTIME, BUSYBOX, "half", "sleep", "1000"]);
    // Both in one look: a VM of the pod before may still be on its way out while the next daemon starts.
    await until("VM and daemon to be there", 60_000, () => world.vms().length === 1 && world.daemonPid() !== undefined);
    const daemon = world.daemonPid();
    assert.ok(daemon !== undefined);
    signal(daemon, "SIGKILL");
    await world.stopAdaptor("SIGKILL");
    assert.notEqual((await starting.done).code, 0);
    await world.startAdaptor();
    await nextPodWorks();
    await world.untilNoVm(MINUTE);
    assert.deepEqual(world.leftovers(), []);
  });

  it("the VM: the exits are known, the pod can be removed, the next works", async () => {
    await startPod("doomed");
    const exec = world.containerd.startCtr(["task", "exec", "--exec-id", "long", "doomed", "sleep", "1000"]);
    await until("the exec to run", 60_000, async () =>
      (await world.containerd.tryCtr(["task", "exec", "--exec-id", `ps${Date.now()}`, "doomed", "ps"])).stdout.includes(
        "sleep 1000",
      ),
    );
    const [vm] = world.vms();
    assert.ok(vm !== undefined);
    signal(vm.pid, "SIGKILL");
    await until("the VM to end", 60_000, () => !isAlive(vm.pid));
    assert.notEqual((await exec.done).code, 0);
    await until(
      "the exit to be known",
      MINUTE,
      async () => (await world.containerd.taskStatus("doomed")) === "STOPPED",
    );
    await world.containerd.tryCtr(["task", "rm", "doomed"]);
    await nextPodWorks();
  });

  it("leaves the run directory without files of pods that are gone", async () => {
    await startPod("tidy");
    const during = readdirSync(world.installation.runDir, { recursive: true }).length;
    await world.containerd.endTask("tidy");
    await world.untilNoVm();
    await until(
      "the pod's files to go",
      60_000,
      () => readdirSync(world.installation.runDir, { recursive: true }).length < during,
    );
  });
});
