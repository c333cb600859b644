import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { Cri } from "./harness/cri.ts";
import { BUSYBOX } from "./harness/images.ts";
import { listProcesses, until } from "./harness/processes.ts";
import { World } from "./harness/world.ts";

const SHORT_CONTAINERS = Number(process.env.KATA_REMOTE_TEST_CONTAINERS ?? "200");
const PODS = 10;

describe("many", () => {
  let world: World;
  before(async () => {
    world = await World.start();
  });
  after(() => world.close());

  it(`${SHORT_CONTAINERS} short containers in a row in one pod give every exit code and leave no zombie`, async () => {
    const cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    const pod = await cri.runPod({ name: "row" });
    for (let i = 0; i < SHORT_CONTAINERS; i++) {
      const expected = i % 256;
      const command = ["sh", "-c", `echo run ${i}; exit ${expected}`];
      const id = await cri.startContainer(pod, { name: `c${i}`, image: BUSYBOX, command });
      const code = await until(`container ${i} to end`, 60_000, async () => {
        const exit = await cri.exitCode(id);
        return exit === undefined ? undefined : { exit };
      });
      assert.equal(code.exit, expected, `container ${i}`);
      await cri.removeContainer(id);
    }
    const daemon = world.daemonPid();
    assert.deepEqual(
      listProcesses().filter((p) => p.ppid === daemon && p.state === "Z"),
      [],
    );
    const [sandbox] = (await world.ps()).sandboxes;
    assert.deepEqual(
      sandbox?.containers.map((c) => c.state),
      ["running"],
      "only the pause container is known",
    );
    await cri.close();
  });

  it(`${PODS} pods at once run on one daemon, each in its own VM`, async () => {
    const { containerd } = world;
    const ids = Array.from({ length: PODS }, (_, i) => `p${i}`);
    const runs = ids.map((id, i) =>
      containerd.startCtr(
        ["run", "--rm", "--runtime", RUNTIME, BUSYBOX, id].concat(
          "sh",
          "-c",
          `cat /proc/sys/kernel/random/boot_id; exec 3<>/dev/zero; sleep 20; exit ${i + 1}`,
        ),
        { timeoutMs: 300_000 },
      ),
    );
    const outcomes = await Promise.all(runs.map((r) => r.done));
    assert.deepEqual(
      outcomes.map((o) => o.code),
      ids.map((_, i) => i + 1),
      JSON.stringify(outcomes),
    );
    assert.equal(new Set(outcomes.map((o) => o.stdout)).size, PODS, "one boot id per pod");
    assert.equal(world.processes().filter((p) => /kata-remote\.mjs node\b/.test(p.command)).length, 1);
    await world.untilNoVm();
    assert.deepEqual(world.leftovers(), []);
  });
});
