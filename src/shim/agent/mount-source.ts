import { posix } from "node:path";

/** Whose mounts are looked at: what belongs to the pod is told from the node's own by these. */
export interface MountOwner {
  readonly containerId: string;
  /** Id of the pod's sandbox container: names what the pod's containers share. */
  readonly sandboxContainerId: string;
  /** "" where the runtime does not say it: then any pod's directory of kubelet is taken for this one's. */
  readonly podUid: string;
}

/** What the source of a bind mount is to the pod. */
export type SourceRole =
  /** An emptyDir, or with `below` a part of it (subPath). */
  | { readonly kind: "empty-dir"; readonly dir: string; readonly name: string; readonly below: string }
  /** ConfigMap, Secret, projected or downward API volume: kubelet changes it while the pod runs. */
  | { readonly kind: "followed" }
  /** File that gets the container's last words; kubelet reads it on the node. */
  | { readonly kind: "termination-log" }
  /** Made for this pod by kubelet or the runtime, and not changed afterwards. */
  | { readonly kind: "own" }
  /** Anything else of the node: hostPath and persistent volumes. */
  | { readonly kind: "host" };

const FOLLOWED = new Set(["configmap", "secret", "projected", "downward-api"]);
/** Filled once, before the container starts. */
const COPIED_ONCE = new Set(["git-repo", "image"]);

/**
 * Reads from a path what it is, by the layout that kubelet, containerd and CRI-O give their directories. kubelet's root
 * directory may be anywhere.
 * @param origin where the files of a subPath really lie, when `source` is one
 * Source: kubelet pkg/kubelet/kubelet_getters.go and subpath_linux.go; containerd pkg/cri/server/helpers.go; reference §2.6.
 */
export function sourceRole(source: string, origin: string | undefined, owner: MountOwner): SourceRole {
  const inPod = belowPodDirectory(source, owner.podUid);
  if (inPod === undefined) return isRuntimes(source, owner) ? { kind: "own" } : { kind: "host" };
  const [area = "", plugin = "", name = "", ...rest] = inPod.split("/");
  switch (area) {
    case "etc-hosts":
      return { kind: "own" };
    case "containers":
      return { kind: "termination-log" };
    case "volumes":
      return volumeRole(source, plugin, name, rest.join("/"));
    case "volume-subpaths": {
      // A mount of kubelet's: what counts is what is mounted there.
      if (origin === undefined || origin === source) return { kind: "host" };
      const role = sourceRole(origin, undefined, owner);
      // A part of a ConfigMap is never changed under a running container, with runc neither.
      return role.kind === "followed" ? { kind: "own" } : role;
    }
    default:
      return { kind: "host" };
  }
}

/** Whether a path is a subPath of kubelet's, whose origin has to be looked up. */
export function isSubPath(source: string): boolean {
  return /\/pods\/[^/]+\/volume-subpaths\//.test(source);
}

function volumeRole(source: string, plugin: string, name: string, below: string): SourceRole {
  const kind = /^kubernetes\.io~(.+)$/.exec(plugin)?.[1];
  if (kind === undefined || name === "") return { kind: "host" };
  if (kind === "empty-dir") {
    const dir = below === "" ? source : source.slice(0, -below.length - 1);
    return { kind: "empty-dir", dir, name, below };
  }
  if (FOLLOWED.has(kind)) return { kind: below === "" ? "followed" : "own" };
  return { kind: COPIED_ONCE.has(kind) ? "own" : "host" };
}

/** The path below `<kubelet root>/pods/<uid>/`; a hostPath may name another pod's, which is none of this one's. */
function belowPodDirectory(source: string, podUid: string): string | undefined {
  const [, uid, below] = /\/pods\/([^/]+)\/(.+)$/.exec(source) ?? [];
  return uid === undefined || (podUid !== "" && uid !== podUid) ? undefined : below;
}

/** hosts, hostname, resolv.conf, volumes of the image: in directories named by the container or its pod. */
function isRuntimes(source: string, owner: MountOwner): boolean {
  const { containerId, sandboxContainerId } = owner;
  const names = posix.dirname(source).split("/");
  return names.some((n) => n.length >= 12 && (n === containerId || n === sandboxContainerId));
}
