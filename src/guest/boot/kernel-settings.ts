import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { memoryBytes } from "../system/machine.ts";

/** Settings of a running kernel. A file that this kernel lacks is skipped. */
const SETTINGS: readonly (readonly [file: string, value: string])[] = [
  // Exit statuses are kept by PID for a while: numbers must not come round soon.
  ["/proc/sys/kernel/pid_max", "4194304"],
  ["/proc/sys/vm/overcommit_memory", "1"],
  ["/proc/sys/fs/inotify/max_user_instances", "8192"],
  ["/proc/sys/fs/inotify/max_user_watches", "524288"],
];

/**
 * Kept from the containers for agent and kernel, bytes. All containers together get the rest: when they use it up, one
 * of them is killed at once, instead of the whole guest crawling without page cache until the kernel finds no other way.
 */
const RESERVED_BYTES = 96n << 20n;

/** Controllers that containers' limits need, in the root group and in the parent of all containers. */
export function prepareKernel(): void {
  for (const [file, value] of SETTINGS) if (existsSync(file)) writeFileSync(file, value);
  mkdirSync("/sys/fs/cgroup/pod", { recursive: true });
  for (const group of ["/sys/fs/cgroup", "/sys/fs/cgroup/pod"]) {
    for (const controller of ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]) {
      try {
        writeFileSync(`${group}/cgroup.subtree_control`, `+${controller}`);
      } catch {
        // not in this kernel; a container that asks for it is told by the runtime
      }
    }
  }
  const podBytes = memoryBytes("MemTotal") - RESERVED_BYTES;
  if (podBytes > RESERVED_BYTES) writeFileSync("/sys/fs/cgroup/pod/memory.max", String(podBytes));
}
