import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseConfig } from "../base/config.ts";
import { loadNodeConfig, NodeConfig } from "./config.ts";
import { cgroupMounts } from "./process-setup.ts";

describe("node configuration", () => {
  it("is complete without a file", () => {
    const config = parseConfig(NodeConfig, {}, "test");
    assert.equal(config.shim.hypervisor, "remote");
    assert.equal(config.shim.startVmTimeoutMs, 600_000);
    assert.equal(config.idleExitMs, 300_000);
    assert.equal(config.qemu, undefined);
    assert.equal(parseConfig(NodeConfig, { qemu: {} }, "test").qemu?.acceleration, "auto");
  });

  it("is read from TOML; what is wrong is named", async () => {
    const dir = await mkdtemp(join(tmpdir(), "config-"));
    try {
      const path = join(dir, "node.toml");
      const load = async (text: string) => {
        await writeFile(path, text);
        return loadNodeConfig(path);
      };
      const config = await load('runDir = "/r"\n[shim]\nhypervisor = "qemu"\n[remote]\naddress = "10.0.0.1:8443"\n');
      assert.deepEqual(
        [config.runDir, config.shim.hypervisor, config.remote?.address],
        ["/r", "qemu", "10.0.0.1:8443"],
      );
      await assert.rejects(load("[shim]\nhypervisr = 1\n"), {
        code: "invalid_argument",
        message: /node\.toml: shim: .*hypervisr/,
      });
      await assert.rejects(load('[remote]\naddress = "nonsense"\n'), {
        code: "invalid_argument",
        message: /remote\.address/,
      });
      await assert.rejects(load("a = = 1"), { code: "invalid_argument", message: /node\.toml is not TOML/ });
      await assert.rejects(loadNodeConfig(join(dir, "none.toml")), { code: "not_found" });
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

describe("cgroup hierarchies", () => {
  it("are found by their root mounts, each once", () => {
    const mountinfo = `24 30 0:22 / /sys rw shared:7 - sysfs sysfs rw
31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 25 0:30 /kubepods /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 25 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
36 25 0:31 / /mnt/again rw - cgroup cgroup rw,cpuset
`;
    assert.deepEqual(cgroupMounts(mountinfo), [
      { path: "/sys/fs/cgroup/unified", version: 2, controllers: [] },
      { path: "/sys/fs/cgroup/cpu,cpuacct", version: 1, controllers: ["cpu", "cpuacct"] },
      { path: "/sys/fs/cgroup/cpuset", version: 1, controllers: ["cpuset"] },
    ]);
  });
});
