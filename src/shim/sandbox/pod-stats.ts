import {
  BlkioStats,
  CgroupStats,
  type MemoryData,
  type StatsContainerResponse,
  StatsContainerResponse as StatsContainerResponses,
} from "../../gen/agent/agent.ts";

/** The figures of a pod: its containers' together. They share one network, whose figures each of them has. */
export function sumStats(all: readonly StatsContainerResponse[]): StatsContainerResponse {
  const groups = all.map((s) => s.cgroupStats).filter((c) => c !== undefined);
  const sum = (of: (c: CgroupStats) => bigint | undefined): bigint => groups.reduce((n, c) => n + (of(c) ?? 0n), 0n);
  const memory = (of: (c: CgroupStats) => MemoryData | undefined) => ({
    usage: sum((c) => of(c)?.usage),
    maxUsage: sum((c) => of(c)?.maxUsage),
    failcnt: sum((c) => of(c)?.failcnt),
    // The whole pod has no limit of its own.
    limit: 0n,
  });
  const stats: Record<string, bigint> = {};
  for (const c of groups) {
    for (const [name, value] of Object.entries(c.memoryStats?.stats ?? {})) stats[name] = (stats[name] ?? 0n) + value;
  }
  const io = (of: keyof BlkioStats) => groups.flatMap((c) => [...((c.blkioStats?.[of] as []) ?? [])]);
  return StatsContainerResponses.fromPartial({
    networkStats: all[0]?.networkStats ?? [],
    cgroupStats: CgroupStats.fromPartial({
      cpuStats: {
        cpuUsage: {
          totalUsage: sum((c) => c.cpuStats?.cpuUsage?.totalUsage),
          usageInKernelmode: sum((c) => c.cpuStats?.cpuUsage?.usageInKernelmode),
          usageInUsermode: sum((c) => c.cpuStats?.cpuUsage?.usageInUsermode),
        },
        throttlingData: {
          periods: sum((c) => c.cpuStats?.throttlingData?.periods),
          throttledPeriods: sum((c) => c.cpuStats?.throttlingData?.throttledPeriods),
          throttledTime: sum((c) => c.cpuStats?.throttlingData?.throttledTime),
        },
      },
      memoryStats: {
        cache: sum((c) => c.memoryStats?.cache),
        usage: memory((c) => c.memoryStats?.usage),
        swapUsage: memory((c) => c.memoryStats?.swapUsage),
        kernelUsage: memory((c) => c.memoryStats?.kernelUsage),
        stats,
      },
      pidsStats: { current: sum((c) => c.pidsStats?.current), limit: 0n },
      blkioStats: BlkioStats.fromPartial({
        ioServiceBytesRecursive: io("ioServiceBytesRecursive"),
        ioServicedRecursive: io("ioServicedRecursive"),
      }),
    }),
  });
}
