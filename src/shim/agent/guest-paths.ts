import { createHash } from "node:crypto";
import { posix } from "node:path";

/** What CopyFile writes must lie below it. Source: kata-agent rpc.rs do_copy_file. */
export const SHARED_DIR = "/run/kata-containers/shared/containers";
/** The pod's shared memory, a tmpfs that CreateSandbox mounts. */
export const SANDBOX_SHM = "/run/kata-containers/sandbox/shm";
export const SANDBOX_EPHEMERAL = "/run/kata-containers/sandbox/ephemeral";

/** Where the root file system of a container is mounted in the guest. */
export function guestRootfs(containerId: string): string {
  return `/run/kata-containers/${containerId}/rootfs`;
}

/** Where the guest's copy of a bind mount lies: `<cid>-<16 hex>-<base name of the destination>`, the same at every call. */
export function guestCopyPath(containerId: string, destination: string): string {
  const hex = createHash("sha256").update(`${containerId}\0${destination}`).digest("hex").slice(0, 16);
  return `${SHARED_DIR}/${containerId}-${hex}-${posix.basename(destination) || "root"}`;
}

/** Where an emptyDir on the guest's disk lies; the containers of a pod share it by its name. */
export function guestLocalDir(sandboxContainerId: string, name: string): string {
  return `${SHARED_DIR}/${sandboxContainerId}/rootfs/local/${name}`;
}

/** Where a volume of the cloud is mounted; its id may be long and have slashes. */
export function guestVolumeDir(volumeId: string): string {
  return `/run/kata-containers/sandbox/volumes/${createHash("sha256").update(volumeId).digest("hex").slice(0, 24)}`;
}
