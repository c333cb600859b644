import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StatsContainerResponse } from "../../gen/agent/agent.ts";
import { Metrics as MetricsV1 } from "../../gen/containerd/cgroups/v1/metrics.ts";
import { Metrics as MetricsV2 } from "../../gen/containerd/cgroups/v2/metrics.ts";
import { encodeStats } from "./container-stats.ts";

const GUEST = StatsContainerResponse.fromPartial({
  cgroupStats: {
    cpuStats: {
      cpuUsage: { totalUsage: 7_000_000n, usageInKernelmode: 2_000_000n, usageInUsermode: 5_000_000n },
      throttlingData: { periods: 3n, throttledTime: 9_000n },
    },
    memoryStats: {
      cache: 11n,
      usage: { usage: 100n, maxUsage: 200n, limit: 300n },
      stats: { anon: 40n, file: 50n, inactive_file: 20n, pgfault: 6n },
    },
    pidsStats: { current: 4n, limit: 5n },
    blkioStats: {
      ioServiceBytesRecursive: [
        { major: 254n, minor: 0n, op: "Read", value: 10n },
        { major: 254n, minor: 0n, op: "write", value: 20n },
      ],
      ioServicedRecursive: [{ major: 254n, minor: 0n, op: "read", value: 1n }],
    },
    hugetlbStats: { "2MB": { usage: 1n, maxUsage: 2n, failcnt: 0n } },
  },
  networkStats: [{ name: "eth0", rxBytes: 1n, txBytes: 2n }],
});

describe("encodeStats", () => {
  it("on a cgroup v1 node", () => {
    const { typeUrl, value } = encodeStats(GUEST, "v1");
    const m = MetricsV1.decode(value);
    assert.equal(typeUrl, "io.containerd.cgroups.v1.Metrics");
    assert.deepEqual(
      [m.cpu?.usage?.total, m.cpu?.usage?.kernel, m.cpu?.throttling?.periods, m.pids?.current],
      [7_000_000n, 2_000_000n, 3n, 4n],
    );
    assert.deepEqual(
      [m.memory?.usage?.usage, m.memory?.usage?.limit, m.memory?.rss, m.memory?.totalInactiveFile, m.memory?.cache],
      [100n, 300n, 40n, 20n, 11n],
    );
    assert.deepEqual(
      [m.blkio?.ioServiceBytesRecursive.length, m.hugetlb[0]?.pagesize, m.network[0]?.name],
      [2, "2MB", "eth0"],
    );
  });

  it("on a cgroup v2 node", () => {
    const { typeUrl, value } = encodeStats(GUEST, "v2");
    const m = MetricsV2.decode(value);
    assert.equal(typeUrl, "io.containerd.cgroups.v2.Metrics");
    assert.deepEqual([m.cpu?.usageUsec, m.cpu?.userUsec, m.cpu?.throttledUsec], [7_000n, 5_000n, 9n]);
    assert.deepEqual(
      [m.memory?.usage, m.memory?.usageLimit, m.memory?.anon, m.memory?.inactiveFile],
      [100n, 300n, 40n, 20n],
    );
    const [io] = m.io?.usage ?? [];
    assert.deepEqual([io?.major, io?.rbytes, io?.wbytes, io?.rios, io?.wios], [254n, 10n, 20n, 1n, 0n]);
  });

  it("of a guest that says nothing is empty, not an error", () => {
    const empty = StatsContainerResponse.fromPartial({});
    const v1 = MetricsV1.decode(encodeStats(empty, "v1").value);
    // What ctr 1.6 reads without looking whether it is there.
    assert.deepEqual([v1.cpu?.usage?.total, v1.memory?.usage?.usage, v1.pids?.current], [0n, 0n, 0n]);
    assert.equal(MetricsV2.decode(encodeStats(empty, "v2").value).memory?.usage, 0n);
  });
});
