import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { mount } from "../system/mounts.ts";

/** What a container's runtime expects of a machine; the initrd has mounted the root and /dev. */
const MOUNTS: readonly (readonly [source: string, target: string, type: string, options: readonly string[]])[] = [
  ["proc", "/proc", "proc", ["nosuid", "noexec", "nodev"]],
  ["sysfs", "/sys", "sysfs", ["nosuid", "noexec", "nodev"]],
  ["cgroup2", "/sys/fs/cgroup", "cgroup2", ["nosuid", "noexec", "nodev"]],
  ["tmpfs", "/run", "tmpfs", ["nosuid", "nodev", "mode=0755"]],
  ["devpts", "/dev/pts", "devpts", ["nosuid", "noexec", "gid=5", "mode=0620", "ptmxmode=0666"]],
  ["tmpfs", "/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777"]],
  ["mqueue", "/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]],
];

/** Mounts what PID 1 has to mount. What is mounted already stays. */
export function mountBase(): void {
  for (const [source, target, type, options] of MOUNTS) {
    mkdirSync(target, { recursive: true });
    try {
      mount(source, target, type, options);
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "EBUSY") throw e;
    }
  }
}

/** Settings of a running kernel. A file that this kernel lacks is skipped. */
const SETTINGS: readonly (readonly [file: string, value: string])[] = [
  // Exit statuses are kept by PID for a while: numbers must not come round soon.
  ["/proc/sys/kernel/pid_max", "4194304"],
  ["/proc/sys/vm/overcommit_memory", "1"],
  ["/proc/sys/net/ipv4/ip_forward", "1"],
  ["/proc/sys/fs/inotify/max_user_instances", "8192"],
  ["/proc/sys/fs/inotify/max_user_watches", "524288"],
  ["/proc/sys/net/ipv4/ping_group_range", "0 2147483647"],
];

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
}
