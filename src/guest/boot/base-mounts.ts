import { mkdirSync } from "node:fs";
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
