import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { chosenProvider } from "./harness/test-cloud.ts";
import { World } from "./harness/world.ts";

const provider = chosenProvider();

/** One body for every backend: what a user sees must not depend on where the VM runs. */
for (const hypervisor of provider === "local" ? (["remote", "qemu"] as const) : (["remote"] as const)) {
  describe(`ctr run, backend ${hypervisor}, provider ${provider}`, () => {
    let world: World;
    before(async () => {
      world = await World.start({ hypervisor, provider });
    });
    after(() => world.close());

    it("passes output and exit code through, from a machine that is not this one", async () => {
      const script = 'echo "out $GREETING"; echo err >&2; uname -r; cat /proc/sys/kernel/random/boot_id; exit 37';
      const { code, stdout, stderr } = await world.containerd.runContainer("one", BUSYBOX, ["sh", "-c", script], {
        flags: ["--env", "GREETING=hello"],
      });
      assert.equal(code, 37, stderr);
      const [out, kernel, bootId] = stdout.split("\n");
      assert.equal(out, "out hello");
      assert.equal(stderr, "err\n");
      assert.notEqual(kernel, release());
      assert.match(bootId ?? "", /^[0-9a-f-]{36}$/);
      assert.notEqual(bootId, readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
      await world.untilNoVm();
      assert.deepEqual(world.leftovers(), []);
    });

    it("starts, shows, kills and deletes a task in the background", async () => {
      const { containerd } = world;
      await containerd.ctr(["run", "-d", "--runtime", RUNTIME, BUSYBOX, "back", "sleep", "1000"]);
      assert.equal(await containerd.taskStatus("back"), "RUNNING");
      const status = await world.sandbox("back");
      assert.equal(status.hypervisor, hypervisor);
      assert.notEqual(status.instanceId, "");
      assert.ok(Object.keys(status.timingsMs).includes("agent"), JSON.stringify(status.timingsMs));
      assert.equal(await containerd.endTask("back"), 137);
      await world.untilNoVm();
      assert.deepEqual((await world.ps()).sandboxes, []);
    });

    it("writes stdout and stderr to a log file where containerd names one", async () => {
      const log = join(world.folder, "task.log");
      const { containerd } = world;
      await containerd.ctr(
        ["run", "-d", "--runtime", RUNTIME, "--log-uri", `file://${log}`, BUSYBOX, "logged"].concat(
          "sh",
          "-c",
          "echo to-the-log; echo errors-too >&2; sleep 1000",
        ),
      );
      await containerd.ctr(["task", "exec", "--exec-id", "wait", "logged", "true"]);
      assert.equal(readFileSync(log, "utf8").split("\n").sort().join(" ").trim(), "errors-too to-the-log");
      await containerd.endTask("logged");
    });
  });
}
