import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Cgroup } from "./cgroup.ts";
import { parseNetDev } from "./network-stats.ts";

const root = mkdtempSync(join(tmpdir(), "cgroup-"));
after(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, "pod/c"), { recursive: true });
const files: Record<string, string> = {
  "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 70\n",
  "memory.current": "4096\n",
  "memory.peak": "8192\n",
  "memory.max": "max\n",
  "memory.stat": "anon 100\nfile 200\nkernel 300\n",
  "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 3\n",
  "pids.current": "5\n",
  "pids.max": "100\n",
  "io.stat": "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
};
for (const [name, text] of Object.entries(files)) writeFileSync(join(root, "pod/c", name), text);

describe("Cgroup", () => {
  it("reads the figures of cgroup v2 in the units of the agent protocol", () => {
    const stats = new Cgroup("/pod/c", root).stats();
    assert.equal(stats.cpuStats?.cpuUsage?.totalUsage, 1_500_000n);
    assert.equal(stats.cpuStats?.throttlingData?.throttledTime, 70_000n);
    assert.deepEqual(stats.memoryStats?.usage, { usage: 4096n, maxUsage: 8192n, failcnt: 7n, limit: 2n ** 64n - 1n });
    assert.equal(stats.memoryStats?.cache, 200n);
    assert.deepEqual(stats.memoryStats?.stats, { anon: 100n, file: 200n, kernel: 300n });
    assert.deepEqual(stats.pidsStats, { current: 5n, limit: 100n });
    assert.deepEqual(
      stats.blkioStats?.ioServiceBytesRecursive.map((e) => [e.major, e.op, e.value]),
      [
        [254n, "Read", 10n],
        [254n, "Write", 20n],
      ],
    );
  });

  it("counts OOM kills, and has no figures once the group is gone", () => {
    assert.equal(new Cgroup("/pod/c", root).oomKills(), 3);
    const gone = new Cgroup("/pod/gone", root);
    assert.equal(gone.oomKills(), 0);
    assert.equal(gone.stats().pidsStats?.current, 0n);
    gone.kill();
  });
});

describe("parseNetDev", () => {
  it("gives the counters of each interface", () => {
    const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 11 1 0 0 0 0 0 0 12 2 0 0 0 0 0 0
  eth0:1000 10 3 4 0 0 0 0 2000 20 5 6 0 0 0 0
`;
    const stats = parseNetDev(text);
    assert.deepEqual(
      stats.map((s) => s.name),
      ["lo", "eth0"],
    );
    assert.deepEqual(
      [stats[1]?.rxBytes, stats[1]?.rxErrors, stats[1]?.rxDropped, stats[1]?.txBytes, stats[1]?.txDropped],
      [1000n, 3n, 4n, 2000n, 6n],
    );
  });
});
