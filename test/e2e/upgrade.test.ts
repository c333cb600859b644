import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { isAlive, signal, until } from "./harness/processes.ts";
import { World } from "./harness/world.ts";

describe("a node daemon that a service manager holds", () => {
  let world: World;
  before(async () => {
    world = await World.start({ supervised: true });
  });
  after(() => world.close());

  const startPod = (id: string) =>
    world.containerd.ctr([
      ...["run", "-d", "--runtime", RUNTIME, BUSYBOX, id],
      ...["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.2; done"],
    ]);

  it("leaves its pods to the next one at SIGTERM, and ends them when it is drained", async () => {
    await startPod("a");
    const daemon = world.daemonPid();
    const relay = world.relayPid();
    assert.ok(daemon !== undefined && relay !== undefined);
    signal(daemon, "SIGTERM");
    await until("the daemon to end", 60_000, () => !isAlive(daemon));
    const waiting = world.containerd.startCtr(["task", "exec", "--exec-id", "e1", "a", "echo", "on"]);
    // Nobody but the manager starts it again: here the next pod's launcher is that.
    await startPod("b");
    const { code, stdout } = await waiting.done;
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "on\n" });
    assert.notEqual(world.daemonPid(), daemon);
    assert.equal(world.relayPid(), relay);
    assert.equal(await world.containerd.endTask("a", "SIGTERM"), 7);
    const drained = await world.command(["node", "--drain"]);
    assert.deepEqual({ code: drained.code, stderr: drained.stderr }, { code: 0, stderr: "" });
    assert.deepEqual([world.daemonPid(), world.relayPid()], [undefined, undefined]);
    await world.untilNoVm();
    assert.notEqual(await world.containerd.taskStatus("b"), "RUNNING");
    await world.containerd.tryCtr(["task", "rm", "b"]);
  });
});
