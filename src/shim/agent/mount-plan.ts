import { posix } from "node:path";
import { Storage } from "../../gen/agent/agent.ts";
import { guestCopyPath, guestLocalDir, SANDBOX_EPHEMERAL, SANDBOX_SHM } from "./guest-paths.ts";
import type { OciMount } from "./oci-spec.ts";
import { refusalFault } from "./refuse-unsupported.ts";

/** What the node knows of a mount source. */
export interface SourceFacts {
  readonly kind: "file" | "directory" | "block" | "character" | "fifo" | "socket";
  /** What is mounted there, as far as it matters. */
  readonly filesystem: "tmpfs" | "hugetlbfs" | "other";
  /** Group of the directory, when files below shall get it (setgid). */
  readonly setgid: number | undefined;
}

export interface MountPlan {
  /** As they shall be in the guest's spec, in the order of the node's. */
  readonly mounts: readonly OciMount[];
  /** For CreateContainer, in this order. */
  readonly storages: readonly Storage[];
  /** Trees to copy into the guest before CreateContainer. */
  readonly copies: readonly MountCopy[];
}

export interface MountCopy {
  /** For messages: `mounts[3]`. */
  readonly field: string;
  readonly source: string;
  readonly destination: string;
  readonly guestPath: string;
}

export interface MountPlanInput {
  readonly containerId: string;
  /** Id of the pod's sandbox container: names what the pod's containers share. */
  readonly sandboxContainerId: string;
  readonly mounts: readonly OciMount[];
  /** undefined = there is no such path. */
  readonly facts: (source: string) => Promise<SourceFacts | undefined>;
  readonly origin: string;
}

const EMPTY_DIR = "/kubernetes.io~empty-dir/";
/** File systems that a container's runtime makes without anything from outside. */
const SELF_MADE = new Set(["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"]);
const HOST_TREES = ["/proc", "/sys", "/dev"];

/**
 * Decides for every mount how the container gets it in the guest. The node shares no files with the VM: trees are
 * copied, emptyDirs are made there.
 * @throws Fault failed_precondition or invalid_argument naming the mount, its source and the remedy
 * Source: reference §2.5 "Mounts", rows for shared_fs=none.
 */
export async function planMounts(input: MountPlanInput): Promise<MountPlan> {
  const mounts: OciMount[] = [];
  const storages: Storage[] = [];
  const copies: MountCopy[] = [];
  for (const [i, mount] of input.mounts.entries()) {
    const field = `mounts[${i}]`;
    if (!isBind(mount)) {
      checkSelfMade(mount, field, input.origin);
      mounts.push(mount);
    } else if (posix.normalize(mount.destination) === "/dev/shm") {
      mounts.push({ ...mount, type: "bind", source: SANDBOX_SHM, options: ["rbind"] });
    } else {
      const source = posix.normalize(mount.source ?? "");
      const facts = await sourceFacts(source, field, input);
      const storage = emptyDirStorage(source, facts, input.sandboxContainerId);
      if (storage !== undefined) {
        storages.push(storage);
        mounts.push({ ...mount, source: storage.mountPoint });
      } else {
        const guestPath = guestCopyPath(input.containerId, mount.destination);
        copies.push({ field, source, destination: mount.destination, guestPath });
        mounts.push({ ...mount, source: guestPath });
      }
    }
  }
  return { mounts, storages, copies };
}

function isBind(mount: OciMount): boolean {
  return mount.type === "bind" || (mount.options ?? []).some((o) => o === "bind" || o === "rbind");
}

function checkSelfMade(mount: OciMount, field: string, origin: string): void {
  const type = mount.type ?? "";
  if (SELF_MADE.has(type)) return;
  const remedy = `only bind mounts and ${[...SELF_MADE].join(", ")} can be mounted at ${mount.destination} in the VM; disks and network shares of the node cannot`;
  throw refusalFault([{ field: `${field}.type`, value: type, remedy }], origin);
}

async function sourceFacts(source: string, field: string, input: MountPlanInput): Promise<SourceFacts> {
  const refuse = (remedy: string, code: "failed_precondition" | "invalid_argument" = "failed_precondition"): never => {
    throw refusalFault([{ field: `${field}.source`, value: source, remedy }], input.origin, code);
  };
  if (!source.startsWith("/")) return refuse("the source of a bind mount must be an absolute path", "invalid_argument");
  const tree = HOST_TREES.find((t) => source === t || source.startsWith(`${t}/`));
  if (tree !== undefined && !source.startsWith("/dev/shm/")) {
    return refuse(`${tree} of the node is not in the VM; the container has the guest's own, remove this mount`);
  }
  const facts = await input.facts(source);
  if (facts === undefined) return refuse("there is no such file or directory on the node", "invalid_argument");
  if (facts.kind !== "file" && facts.kind !== "directory") {
    return refuse(
      `a ${facts.kind === "block" ? "block device" : facts.kind} of the node cannot be used from the VM; remove this mount`,
    );
  }
  if (facts.filesystem === "hugetlbfs")
    return refuse("huge pages of the node cannot be used from the VM; use memory instead");
  return facts;
}

/** emptyDirs start empty and belong to the pod: the guest makes them, in memory or on its disk. */
function emptyDirStorage(source: string, facts: SourceFacts, sandboxContainerId: string): Storage | undefined {
  const at = source.indexOf(EMPTY_DIR);
  if (at < 0 || facts.kind !== "directory") return undefined;
  const name = source.slice(at + EMPTY_DIR.length);
  // A subPath lies below the emptyDir, is not empty by definition and is copied like any other tree.
  if (name.includes("/") || name === "") return undefined;
  const fsgid = facts.setgid === undefined ? [] : [`fsgid=${facts.setgid}`];
  if (facts.filesystem === "tmpfs") {
    return Storage.fromPartial({
      driver: "ephemeral",
      source: "tmpfs",
      fstype: "tmpfs",
      options: fsgid,
      mountPoint: `${SANDBOX_EPHEMERAL}/${name}`,
    });
  }
  return Storage.fromPartial({
    driver: "local",
    source: "local",
    fstype: "local",
    options: ["mode=0777", ...fsgid],
    mountPoint: guestLocalDir(sandboxContainerId, name),
  });
}
