import type { CgroupStats, MemoryStats, NetworkStats, StatsContainerResponse } from "../../gen/agent/agent.ts";
import { Metrics as MetricsV1 } from "../../gen/containerd/cgroups/v1/metrics.ts";
import { Metrics as MetricsV2 } from "../../gen/containerd/cgroups/v2/metrics.ts";

/** Encoded figures of a container, in the form that the node's cgroup version asks for. */
export interface EncodedStats {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/**
 * Turns the guest's figures into containerd's Metrics. Consumers expect the form of the node's cgroup version, whatever
 * version the guest has.
 * Source: reference §2.8; containerd/cgroups stats protos; kata statsToMetricsV1/V2.
 */
export function encodeStats(stats: StatsContainerResponse, hostCgroup: "v1" | "v2"): EncodedStats {
  const cgroup = stats.cgroupStats;
  return hostCgroup === "v1"
    ? {
        typeUrl: "io.containerd.cgroups.v1.Metrics",
        value: MetricsV1.encode(toV1(cgroup, stats.networkStats)).finish(),
      }
    : {
        typeUrl: "io.containerd.cgroups.v2.Metrics",
        value: MetricsV2.encode(toV2(cgroup, stats.networkStats)).finish(),
      };
}

function toV1(c: CgroupStats | undefined, network: readonly NetworkStats[]): MetricsV1 {
  const memory = c?.memoryStats;
  const of = memoryStat(memory);
  const blkio = c?.blkioStats;
  const io = (entries: readonly { major: bigint; minor: bigint; op: string; value: bigint }[] | undefined) =>
    (entries ?? []).map(({ major, minor, op, value }) => ({ major, minor, op, value, device: "" }));
  return MetricsV1.fromPartial({
    hugetlb: hugetlb(c).map(([pagesize, h]) => ({ pagesize, usage: h.usage, max: h.maxUsage, failcnt: h.failcnt })),
    pids: { current: c?.pidsStats?.current ?? 0n, limit: c?.pidsStats?.limit ?? 0n },
    cpu: {
      usage: {
        total: c?.cpuStats?.cpuUsage?.totalUsage ?? 0n,
        kernel: c?.cpuStats?.cpuUsage?.usageInKernelmode ?? 0n,
        user: c?.cpuStats?.cpuUsage?.usageInUsermode ?? 0n,
        perCpu: c?.cpuStats?.cpuUsage?.percpuUsage ?? [],
      },
      throttling: {
        periods: c?.cpuStats?.throttlingData?.periods ?? 0n,
        throttledPeriods: c?.cpuStats?.throttlingData?.throttledPeriods ?? 0n,
        throttledTime: c?.cpuStats?.throttlingData?.throttledTime ?? 0n,
      },
    },
    memory: {
      cache: memory?.cache ?? 0n,
      rss: of("rss", "anon"),
      rssHuge: of("rss_huge", "anon_thp"),
      mappedFile: of("mapped_file", "file_mapped"),
      dirty: of("dirty", "file_dirty"),
      writeback: of("writeback", "file_writeback"),
      pgFault: of("pgfault"),
      pgMajFault: of("pgmajfault"),
      inactiveAnon: of("inactive_anon"),
      activeAnon: of("active_anon"),
      inactiveFile: of("inactive_file"),
      activeFile: of("active_file"),
      unevictable: of("unevictable"),
      totalRss: of("total_rss", "anon"),
      totalCache: of("total_cache", "file"),
      // Working set = usage - total_inactive_file, for kubelet and ctr.
      totalInactiveFile: of("total_inactive_file", "inactive_file"),
      totalActiveFile: of("total_active_file", "active_file"),
      totalInactiveAnon: of("total_inactive_anon", "inactive_anon"),
      totalActiveAnon: of("total_active_anon", "active_anon"),
      usage: entry(memory?.usage),
      swap: entry(memory?.swapUsage),
      kernel: entry(memory?.kernelUsage),
    },
    blkio: {
      ioServiceBytesRecursive: io(blkio?.ioServiceBytesRecursive),
      ioServicedRecursive: io(blkio?.ioServicedRecursive),
      ioQueuedRecursive: io(blkio?.ioQueuedRecursive),
      ioServiceTimeRecursive: io(blkio?.ioServiceTimeRecursive),
      ioWaitTimeRecursive: io(blkio?.ioWaitTimeRecursive),
      ioMergedRecursive: io(blkio?.ioMergedRecursive),
      ioTimeRecursive: io(blkio?.ioTimeRecursive),
      sectorsRecursive: io(blkio?.sectorsRecursive),
    },
    network: network.map(networkEntry),
  });
}

function toV2(c: CgroupStats | undefined, network: readonly NetworkStats[]): MetricsV2 {
  const memory = c?.memoryStats;
  const of = memoryStat(memory);
  const usec = (ns: bigint | undefined): bigint => (ns ?? 0n) / 1_000n;
  return MetricsV2.fromPartial({
    pids: { current: c?.pidsStats?.current ?? 0n, limit: c?.pidsStats?.limit ?? 0n },
    cpu: {
      usageUsec: usec(c?.cpuStats?.cpuUsage?.totalUsage),
      userUsec: usec(c?.cpuStats?.cpuUsage?.usageInUsermode),
      systemUsec: usec(c?.cpuStats?.cpuUsage?.usageInKernelmode),
      nrPeriods: c?.cpuStats?.throttlingData?.periods ?? 0n,
      nrThrottled: c?.cpuStats?.throttlingData?.throttledPeriods ?? 0n,
      throttledUsec: usec(c?.cpuStats?.throttlingData?.throttledTime),
    },
    memory: {
      anon: of("anon", "total_rss"),
      file: of("file", "total_cache"),
      kernelStack: of("kernel_stack"),
      slab: of("slab"),
      sock: of("sock"),
      shmem: of("shmem"),
      fileMapped: of("file_mapped", "total_mapped_file"),
      fileDirty: of("file_dirty", "total_dirty"),
      fileWriteback: of("file_writeback", "total_writeback"),
      anonThp: of("anon_thp"),
      inactiveAnon: of("inactive_anon", "total_inactive_anon"),
      activeAnon: of("active_anon", "total_active_anon"),
      inactiveFile: of("inactive_file", "total_inactive_file"),
      activeFile: of("active_file", "total_active_file"),
      unevictable: of("unevictable", "total_unevictable"),
      pgfault: of("pgfault", "total_pgfault"),
      pgmajfault: of("pgmajfault", "total_pgmajfault"),
      usage: memory?.usage?.usage ?? 0n,
      usageLimit: memory?.usage?.limit ?? 0n,
      maxUsage: memory?.usage?.maxUsage ?? 0n,
      swapUsage: memory?.swapUsage?.usage ?? 0n,
      swapLimit: memory?.swapUsage?.limit ?? 0n,
    },
    io: { usage: ioByDevice(c) },
    hugetlb: hugetlb(c).map(([pagesize, h]) => ({ pagesize, current: h.usage, max: h.maxUsage, failcnt: h.failcnt })),
    network: network.map(networkEntry),
  });
}

/** Reads memory.stat of the guest: names differ between cgroup versions, the first that is there counts. */
function memoryStat(memory: MemoryStats | undefined): (...names: readonly string[]) => bigint {
  const stats = memory?.stats ?? {};
  return (...names) => {
    for (const name of names) {
      const value = stats[name];
      if (value !== undefined) return value;
    }
    return 0n;
  };
}

/** Always there: ctr reads it without looking. */
function entry(m: MemoryStats["usage"]): { limit: bigint; usage: bigint; max: bigint; failcnt: bigint } {
  return { limit: m?.limit ?? 0n, usage: m?.usage ?? 0n, max: m?.maxUsage ?? 0n, failcnt: m?.failcnt ?? 0n };
}

function hugetlb(c: CgroupStats | undefined): [string, { usage: bigint; maxUsage: bigint; failcnt: bigint }][] {
  return Object.entries(c?.hugetlbStats ?? {});
}

interface DeviceIo {
  major: bigint;
  minor: bigint;
  rbytes: bigint;
  wbytes: bigint;
  rios: bigint;
  wios: bigint;
}

function ioByDevice(c: CgroupStats | undefined): DeviceIo[] {
  const devices = new Map<string, DeviceIo>();
  const add = (
    list: readonly { major: bigint; minor: bigint; op: string; value: bigint }[],
    read: "rbytes" | "rios",
    write: "wbytes" | "wios",
  ): void => {
    for (const { major, minor, op, value } of list) {
      const key = `${major}:${minor}`;
      const device = devices.get(key) ?? { major, minor, rbytes: 0n, wbytes: 0n, rios: 0n, wios: 0n };
      devices.set(key, device);
      if (op.toLowerCase() === "read") device[read] += value;
      else if (op.toLowerCase() === "write") device[write] += value;
    }
  };
  add(c?.blkioStats?.ioServiceBytesRecursive ?? [], "rbytes", "wbytes");
  add(c?.blkioStats?.ioServicedRecursive ?? [], "rios", "wios");
  return [...devices.values()];
}

function networkEntry(n: NetworkStats): Omit<NetworkStats, "_unknownFields"> {
  const { name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped } = n;
  return { name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped };
}
