import { createHash } from "node:crypto";
import { mkdir, readFile, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

const PARENT = "kata-remote";

/**
 * Makes a cgroup of its own for a VM in every hierarchy (v1 and v2), so that stopping our service does not end it and
 * its memory is not counted as ours. cpuset is left out: a new group there has no CPUs until they are given to it.
 * @returns the `cgroup.procs` files that the VM's process has to write its pid to; none where cgroups are read-only to us
 */
export async function createCgroups(dir: string): Promise<string[]> {
  const files: string[] = [];
  for (const group of await groupsOf(dir)) {
    // Twice: the parent may be removed, being empty, while we are about to make something in it.
    if ((await make(group)) || (await make(group))) files.push(join(group, "cgroup.procs"));
  }
  return files;
}

/** False where it is not ours to make (container, not root): the VM then stays in our own group, the best there is. */
async function make(group: string): Promise<boolean> {
  return mkdir(group, { recursive: true, mode: 0o755 }).then(
    () => true,
    () => false,
  );
}

/** How long a killed VM's threads may take to leave their cgroup, ms. */
const LEAVE_MS = 2000;

/** Removes them again, as soon as the last thread of the killed VM has left. */
export async function removeCgroups(dir: string): Promise<void> {
  const groups = await groupsOf(dir);
  await Promise.all(groups.map(removeWhenLeft));
  // Fails, as it should, while other VMs have groups in there.
  for (const group of groups) await rmdir(dirname(group)).catch(() => undefined);
}

async function removeWhenLeft(group: string): Promise<void> {
  for (const until = Date.now() + LEAVE_MS; ; await delay(10)) {
    try {
      return await rmdir(group);
    } catch (e) {
      // Anything but EBUSY: never made, or not ours to change. Someone who stays that long was put there by others.
      if ((e as NodeJS.ErrnoException).code !== "EBUSY" || Date.now() > until) return;
    }
  }
}

/** The name follows from the VM's directory, so that a later process finds the group without a record of it. */
async function groupsOf(dir: string): Promise<string[]> {
  const name = `vm-${createHash("sha256").update(dir).digest("hex").slice(0, 16)}`;
  return (await hierarchies()).map((mount) => join(mount, PARENT, name));
}

/** Mount points of all cgroup hierarchies. Source: proc(5), mountinfo. */
async function hierarchies(): Promise<string[]> {
  const found: string[] = [];
  for (const line of (await readFile("/proc/self/mountinfo", "utf8")).split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const mountPoint = before.split(" ")[4];
    const [type = "", , options = ""] = after.split(" ");
    const isCpuset = type === "cgroup" && options.split(",").includes("cpuset");
    if (mountPoint !== undefined && /^cgroup2?$/.test(type) && !isCpuset) found.push(mountPoint);
  }
  return [...new Set(found)];
}
