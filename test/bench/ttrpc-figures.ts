import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";

/** Our ttrpc between two processes over a unix socket, without tunnel. */
export async function ttrpcFigures(scope: BenchScope): Promise<Figure[]> {
  const t = await scope.ttrpc();
  const socket = { value: t.bareSocketP50Us, text: `the bare socket (${t.bareSocketP50Us} us)` };
  return [
    figure("ttrpc.call.p50", "bare ttrpc call, p50", t.sequentialP50Us, "us", { base: socket }),
    figure("ttrpc.call.p99", "bare ttrpc call, p99", t.sequentialP99Us, "us", { base: socket }),
    figure("ttrpc.call.rate", "bare ttrpc calls, 32 in flight", t.concurrentCallsPerSecond, "calls/s"),
    figure("ttrpc.perCpu", "calls per CPU second of both ends, one by one", t.sequentialCallsPerCpuSecond, "calls"),
    figure("ttrpc.perCpu32", "calls per CPU second of both ends, 32 in flight", t.concurrentCallsPerCpuSecond, "calls"),
    figure("ttrpc.read32KiB", "32 KiB replies, one by one", t.sequentialReplies32KiBMBps, "MB/s"),
    figure("ttrpc.read32KiBby4", "32 KiB replies, 4 in flight", t.replies32KiBMBps, "MB/s"),
    figure("ttrpc.read1MiB", "1 MiB replies, one by one", t.sequentialReplies1MiBMBps, "MB/s"),
    figure("ttrpc.read1MiBby4", "1 MiB replies, 4 in flight", t.replies1MiBMBps, "MB/s"),
  ];
}
