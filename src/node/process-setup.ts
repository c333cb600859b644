import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Logger } from "../base/log.ts";

/** Last to be chosen by the OOM killer, short of never: one process serves every pod of the node. */
const OOM_SCORE = -998;
/** Our cgroup in every hierarchy. */
const CGROUP = "kata-remote-node";

/**
 * Makes this process fit to serve a node: files it makes are its owner's, the OOM killer looks elsewhere first, and it
 * leaves the cgroup of whoever started it (containerd's, which may be stopped or limited as a whole).
 * What the system does not allow is logged, not fatal.
 */
export async function setUpProcess(options: { readonly supervised: boolean; readonly log: Logger }): Promise<void> {
  process.umask(0o077);
  try {
    await writeFile("/proc/self/oom_score_adj", String(OOM_SCORE));
  } catch (err) {
    options.log.warn({ err }, "cannot set the OOM score: the node daemon may be killed when memory runs out");
  }
  // systemd's unit is a cgroup of its own, with the limits that the operator wants.
  if (!options.supervised) await leaveCgroup(options.log);
}

async function leaveCgroup(log: Logger): Promise<void> {
  for (const { path, version, controllers } of cgroupMounts(await readFile("/proc/self/mountinfo", "utf8"))) {
    const group = join(path, CGROUP);
    try {
      await mkdir(group, { recursive: true, mode: 0o755 });
      if (version === 1 && controllers.includes("cpuset")) await inheritCpuset(group);
      await writeFile(join(group, "cgroup.procs"), String(process.pid));
    } catch (err) {
      log.debug({ err, cgroup: group }, "cannot move to a cgroup of our own");
    }
  }
}

/** A new cpuset is empty, and nothing may enter an empty one. Source: kernel admin-guide/cgroup-v1/cpusets.rst */
async function inheritCpuset(group: string): Promise<void> {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    const own = join(group, file);
    if ((await readFile(own, "utf8")).trim() !== "") continue;
    await writeFile(own, await readFile(join(dirname(group), file), "utf8"));
  }
}

export interface CgroupMount {
  readonly path: string;
  readonly version: 1 | 2;
  readonly controllers: readonly string[];
}

/**
 * The hierarchies that are mounted here with their root, each once.
 * Source: proc(5), /proc/pid/mountinfo: fields 4 and 5 are root and mount point, after "-" type, source, super options.
 */
export function cgroupMounts(mountinfo: string): readonly CgroupMount[] {
  const mounts = new Map<string, CgroupMount>();
  for (const line of mountinfo.split("\n")) {
    const [head, tail] = line.split(" - ");
    const [, , , root, path] = head?.split(" ") ?? [];
    const [type, , options = ""] = tail?.split(" ") ?? [];
    if (root !== "/" || path === undefined || (type !== "cgroup" && type !== "cgroup2")) continue;
    const controllers = type === "cgroup" ? options.split(",").filter((o) => o !== "rw" && o !== "ro") : [];
    const key = type === "cgroup2" ? "2" : controllers.join(",");
    if (!mounts.has(key)) mounts.set(key, { path, version: type === "cgroup2" ? 2 : 1, controllers });
  }
  return [...mounts.values()];
}
