import { readdir } from "node:fs/promises";
import { readIfThere } from "../../base/files.ts";

/** How long each of a process's threads has waited for a CPU since it began, ms, by thread. */
export type CpuWaits = ReadonlyMap<string, number>;

/**
 * Reads how long the threads of a process were ready to run while the host had no CPU for them.
 * Source: Linux Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat; a kernel without it gives nothing.
 */
export async function cpuWaits(pid: number): Promise<CpuWaits> {
  const waits = new Map<string, number>();
  try {
    for (const thread of await readdir(`/proc/${pid}/task`)) {
      const [, waited] = ((await readIfThere(`/proc/${pid}/task/${thread}/schedstat`)) ?? "").split(" ");
      if (waited !== undefined) waits.set(thread, Number(waited) / 1e6);
    }
  } catch {
    // It ended while we looked: whoever asks sees that elsewhere.
  }
  return waits;
}

/** How long the thread that waited most had to do so between two readings, ms: the guest's own clock stood still. */
export function starvedMs(before: CpuWaits, after: CpuWaits): number {
  let most = 0;
  for (const [thread, waited] of after) most = Math.max(most, waited - (before.get(thread) ?? 0));
  return most;
}
