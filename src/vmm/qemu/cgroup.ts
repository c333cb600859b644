import { createHash } from "node:crypto";
import { mkdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";

const PARENT = "kata-remote";

/**
 * Makes a cgroup of its own for a VM in every hierarchy (v1 and v2), so that stopping our service does not end it and
 * its memory is not counted as ours. cpuset is left out: a new group there has no CPUs until they are given to it.
 * @returns the `cgroup.procs` files that the VM's process has to write its pid to; none where cgroups are read-only to us
 */
export async function createCgroups(dir: string): Promise<string[]> {
  const files: string[] = [];
  for (const group of await groupsOf(dir)) {
    try {
      await mkdir(group, { recursive: true, mode: 0o755 });
      files.push(join(group, "cgroup.procs"));
    } catch {
      // Not ours to change (container, not root): the VM then stays in our own group, which is all that can be done.
    }
  }
  return files;
}

/** Removes them again; a group that is gone or still busy is left alone. */
export async function removeCgroups(dir: string): Promise<void> {
  for (const group of await groupsOf(dir)) {
    await remove(group);
    await remove(join(group, ".."));
  }
}

async function remove(group: string): Promise<void> {
  // ENOENT: never made. EBUSY, ENOTEMPTY: another VM's groups are in the parent. EROFS, EACCES: could not be made.
  await rmdir(group).catch(() => undefined);
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
