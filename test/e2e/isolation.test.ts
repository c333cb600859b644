import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type Containerd, RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { World } from "./harness/world.ts";

describe("equal ids", () => {
  let world: World;
  let second: Containerd;
  before(async () => {
    world = await World.start();
    second = await world.addContainerd("b");
  });
  after(() => world.close());

  it("in two namespaces and two containerds are three pods that do not touch each other", async () => {
    const first = world.containerd;
    const places: readonly (readonly [Containerd, string])[] = [
      [first, "default"],
      [first, "k8s.io"],
      [second, "default"],
    ];
    await Promise.all(
      places.map(([containerd, namespace]) =>
        containerd.ctr(["run", "-d", "--runtime", RUNTIME, BUSYBOX, "same", "sleep", "1000"], { namespace }),
      ),
    );
    const bootIds = await Promise.all(
      places.map(([containerd, namespace]) =>
        containerd.ctr(["task", "exec", "--exec-id", "b", "same", "cat", "/proc/sys/kernel/random/boot_id"], {
          namespace,
        }),
      ),
    );
    assert.equal(new Set(bootIds).size, 3);
    assert.equal((await world.ps()).sandboxes.length, 3);

    assert.equal(await first.endTask("same", "SIGKILL", "k8s.io"), 137);
    assert.equal(await first.taskStatus("same", "k8s.io"), undefined);
    assert.equal(await first.taskStatus("same", "default"), "RUNNING");
    assert.equal(await second.taskStatus("same", "default"), "RUNNING");
    await second.ctr(["task", "exec", "--exec-id", "c", "same", "true"]);

    // Each containerd hears of its own task only.
    assert.doesNotMatch(second.log(100_000), /k8s\.io.*same/);
    for (const containerd of [first, second]) assert.equal(await containerd.endTask("same"), 137);
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
  });
});
