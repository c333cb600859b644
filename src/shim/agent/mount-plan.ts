import { posix } from "node:path";
import { Storage } from "../../gen/agent/agent.ts";
import { VOLUME_STORAGE_DRIVER } from "../../guestwire/index.ts";
import { guestCopyPath, guestLocalDir, guestVolumeDir, SANDBOX_EPHEMERAL, SANDBOX_SHM } from "./guest-paths.ts";
import { type MountOwner, sourceRole } from "./mount-source.ts";
import type { OciMount } from "./oci-spec.ts";
import { refusalFault } from "./refuse-unsupported.ts";

/** What the node knows of a mount source. */
export interface SourceFacts {
  readonly kind: "file" | "directory" | "block" | "character" | "fifo" | "socket";
  /** What is mounted there, as far as it matters. */
  readonly filesystem: "tmpfs" | "hugetlbfs" | "other";
  /** Size of the file system, bytes; of a tmpfs. */
  readonly tmpfsBytes?: number;
  /** Group of the directory, when files below shall get it (setgid). */
  readonly setgid: number | undefined;
  /** Where symbolic links on the way lead to. */
  readonly realPath: string;
  /** Of a subPath that kubelet has mounted: where its files lie. */
  readonly origin?: string;
}

/** A volume that was attached to the pod's VM. */
export interface CloudVolume {
  readonly diskId: string;
  readonly fsType: string;
  readonly fsGroup?: number;
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
  /** "followed": changes on the node are carried into the guest; "termination-log": comes back at the container's end. */
  readonly role: "once" | "followed" | "termination-log";
}

export interface MountPlanInput {
  readonly owner: MountOwner;
  readonly mounts: readonly OciMount[];
  /** Volumes of the cloud that the VM has, by what mounts name as their source. */
  readonly volumes?: ReadonlyMap<string, CloudVolume>;
  /** undefined = there is no such path. */
  readonly facts: (source: string) => Promise<SourceFacts | undefined>;
  /** Directories of the node that containers may get a copy of; undefined = every one. */
  readonly hostPaths: readonly string[] | undefined;
  readonly origin: string;
}

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
      const placed = await place(mount, field, input);
      storages.push(...placed.storages);
      copies.push(...placed.copies);
      mounts.push({ ...mount, source: placed.source });
    }
  }
  return { mounts, storages, copies };
}

interface Placed {
  /** In the guest. */
  readonly source: string;
  readonly storages: readonly Storage[];
  readonly copies: readonly MountCopy[];
}

async function place(mount: OciMount, field: string, input: MountPlanInput): Promise<Placed> {
  const { owner } = input;
  const source = posix.normalize(mount.source ?? "");
  const volume = input.volumes?.get(source);
  if (volume !== undefined) {
    const storage = volumeStorage(volume);
    return { source: storage.mountPoint, storages: [storage], copies: [] };
  }
  const facts = await sourceFacts(source, field, input);
  const role = sourceRole(source, facts.origin, owner);
  if (role.kind === "empty-dir" && (facts.kind === "directory" || role.below !== "")) {
    const volume = role.dir === source ? facts : await input.facts(role.dir);
    const storages = emptyDirStorages(role, volume ?? facts, owner.sandboxContainerId);
    const [whole] = storages;
    return { source: posix.join(whole.mountPoint, role.below), storages, copies: [] };
  }
  if (role.kind === "host") checkHostPath(facts, source, field, input);
  const guestPath = guestCopyPath(owner.containerId, mount.destination);
  const copyRole = role.kind === "followed" || role.kind === "termination-log" ? role.kind : "once";
  const copy = { field, source, destination: mount.destination, guestPath, role: copyRole } as const;
  return { source: guestPath, storages: [], copies: [copy] };
}

/** A volume of the pod: the guest mounts it once, for all containers. */
function volumeStorage({ diskId, fsType, fsGroup }: CloudVolume): Storage {
  return Storage.fromPartial({
    driver: VOLUME_STORAGE_DRIVER,
    source: diskId,
    fstype: fsType,
    options: fsGroup === undefined ? [] : [`fsgid=${fsGroup}`],
    mountPoint: guestVolumeDir(diskId),
  });
}

/** What the node has besides the pod's own files is copied only where the node's configuration says so. */
function checkHostPath(facts: SourceFacts, source: string, field: string, input: MountPlanInput): void {
  const allowed = input.hostPaths;
  if (allowed === undefined) return;
  const within = (path: string): boolean =>
    allowed.some((dir) => path === dir || path.startsWith(dir.endsWith("/") ? dir : `${dir}/`));
  if (within(source) && within(facts.realPath)) return;
  const remedy =
    "it is no volume that can follow the pod into its VM (hostPath and persistent volumes stay on the node); " +
    "use a ConfigMap, Secret, emptyDir or the image, or list its directory in shim.hostPaths of the node's configuration to have a copy made at each start";
  throw refusalFault([{ field: `${field}.source`, value: source, remedy }], input.origin);
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

/**
 * emptyDirs start empty and belong to the pod: the guest makes them, in memory or on its disk. A part of one (subPath)
 * is made in it.
 */
function emptyDirStorages(
  volume: { readonly name: string; readonly below: string },
  facts: SourceFacts,
  sandboxContainerId: string,
): readonly [Storage, ...Storage[]] {
  const fsgid = facts.setgid === undefined ? [] : [`fsgid=${facts.setgid}`];
  const local = (mountPoint: string): Storage =>
    Storage.fromPartial({
      driver: "local",
      source: "local",
      fstype: "local",
      options: ["mode=0777", ...fsgid],
      mountPoint,
    });
  const size = facts.tmpfsBytes === undefined ? [] : [`size=${facts.tmpfsBytes}`];
  const whole =
    facts.filesystem === "tmpfs"
      ? Storage.fromPartial({
          driver: "ephemeral",
          source: "tmpfs",
          fstype: "tmpfs",
          options: [...fsgid, "mode=0777", ...size],
          mountPoint: `${SANDBOX_EPHEMERAL}/${volume.name}`,
        })
      : local(guestLocalDir(sandboxContainerId, volume.name));
  return volume.below === "" ? [whole] : [whole, local(posix.join(whole.mountPoint, volume.below))];
}
