import { chmodSync, chownSync, closeSync, existsSync, mkdirSync, openSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import type { Process } from "../../gen/agent/oci.ts";
import { GUEST_PULL_DRIVER, TREE_STORAGE_DRIVER, VOLUME_STORAGE_DRIVER } from "../../guestwire/index.ts";
import type { GuestImages } from "../images/index.ts";
import { makeDirectoryBelow } from "../system/confined.ts";
import { MS_BIND, mount, mountFlags, unmount } from "../system/mounts.ts";
import { mountOverlayRoot } from "../system/overlay-root.ts";
import type { CloudVolumes } from "./cloud-volumes.ts";
import { type AgentPaths, treePath } from "./paths.ts";

interface Mounted {
  users: number;
  /** Belongs to the pod: what an ended container has left in a volume is for the next one. */
  readonly kept: boolean;
  readonly undo: () => Promise<void>;
}

/** Storage drivers that this agent has, as GetGuestDetails lists them. */
export const STORAGE_DRIVERS: readonly string[] = [
  ...["ephemeral", TREE_STORAGE_DRIVER, "local", GUEST_PULL_DRIVER, VOLUME_STORAGE_DRIVER],
];

/** Of root filesystems. */
const ROOT_DRIVERS: ReadonlySet<string> = new Set([TREE_STORAGE_DRIVER, GUEST_PULL_DRIVER]);

/**
 * What is mounted for containers and the sandbox, by mount point: several containers may share a volume. Root
 * filesystems go with their container, volumes with the pod.
 */
export class Storages {
  readonly #paths: AgentPaths;
  readonly #images: () => Promise<GuestImages>;
  readonly #volumes: CloudVolumes;
  /** Of containers that have asked for an image. */
  readonly #ready = new Map<string, GuestImages>();
  readonly #mounted = new Map<string, Mounted>();
  #serial = 0;

  /** @param images asked for with the first image that is to be pulled */
  constructor(paths: AgentPaths, images: () => Promise<GuestImages>, volumes: CloudVolumes) {
    this.#paths = paths;
    this.#volumes = volumes;
    this.#images = images;
  }

  /**
   * What has to happen before `add`, and takes time: pulls images (until `forget`), waits for volumes.
   * @throws Fault saying why an image was not pulled or a volume cannot be used
   */
  async prepare(storages: readonly Storage[], owner: string, call: Call): Promise<void> {
    for (const storage of storages) {
      if (storage.driver === VOLUME_STORAGE_DRIVER) await this.#volumes.prepare(storage, call);
      if (storage.driver !== GUEST_PULL_DRIVER) continue;
      const images = await this.#images();
      await images.prepare(storage, owner, call);
      this.#ready.set(owner, images);
    }
  }

  /** What a container runs: the pod's own, whose image is part of the guest, does not run the node's. */
  processOf(owner: string, storages: readonly Storage[], process: Process): Process {
    return this.#ready.get(owner)?.processOf(storages, process) ?? process;
  }

  /** Images of a container are needed no more. Repeatable. */
  forget(owner: string): void {
    this.#ready.get(owner)?.release(owner);
    this.#ready.delete(owner);
  }

  /**
   * Mounts one storage, or counts one more user of it. Give the mount point to `release` later.
   * @throws Fault invalid_argument (unknown driver, mount point outside of the agent's directory), not_found (tree not sent)
   */
  add(storage: Storage, owner: string): string {
    const mountPoint = storage.mountPoint.replace(/\/+$/, "");
    const mounted = this.#mounted.get(mountPoint);
    if (mounted !== undefined) {
      mounted.users += 1;
      return mountPoint;
    }
    const undo = this.#mount(storage, mountPoint, owner);
    this.#mounted.set(mountPoint, { users: 1, kept: !ROOT_DRIVERS.has(storage.driver), undo });
    return mountPoint;
  }

  /** Undoes the mount with its last user, unless it is a volume of the pod. An unknown mount point is no error. */
  async release(mountPoint: string): Promise<void> {
    const mounted = this.#mounted.get(mountPoint);
    if (mounted === undefined || mounted.kept) return;
    mounted.users -= 1;
    if (mounted.users > 0) return;
    this.#mounted.delete(mountPoint);
    await mounted.undo();
  }

  async releaseAll(): Promise<void> {
    for (const [mountPoint, mounted] of [...this.#mounted].reverse()) {
      this.#mounted.delete(mountPoint);
      await mounted.undo();
    }
  }

  /** Mounts again with other options: a changed size of a tmpfs. */
  update(storage: Storage): void {
    if (!this.#mounted.has(storage.mountPoint)) {
      throw new Fault("not_found", `no storage is mounted on ${storage.mountPoint}`);
    }
    mount(storage.source, storage.mountPoint, storage.fstype, [
      ...storage.options.filter((o) => o !== "remount"),
      "remount",
    ]);
  }

  #mount(storage: Storage, mountPoint: string, owner: string): () => Promise<void> {
    switch (storage.driver) {
      case "ephemeral":
        return this.#ephemeral(storage, mountPoint);
      case "local":
        return this.#local(storage, mountPoint);
      case VOLUME_STORAGE_DRIVER:
        return this.#volume(storage, mountPoint);
      case TREE_STORAGE_DRIVER:
        return this.#tree(storage, mountPoint, owner);
      case GUEST_PULL_DRIVER:
        return this.#rootOver(this.#imageOf(owner).lowerDirectories(owner), storage, mountPoint, owner);
      default:
        throw new Fault(
          "invalid_argument",
          `storage driver "${storage.driver}" for ${mountPoint} is not known here: ${STORAGE_DRIVERS.join(", ")} are`,
        );
    }
  }

  /** A tmpfs (or hugetlbfs) in the guest's memory. */
  #ephemeral(storage: Storage, mountPoint: string): () => Promise<void> {
    this.#makeMountPoint(mountPoint, 0o755);
    const group = groupOf(storage);
    mount(
      storage.source,
      mountPoint,
      storage.fstype,
      storage.options.filter((o) => !o.startsWith("fsgid=")),
    );
    if (group !== undefined) giveToGroup(mountPoint, group);
    return async () => unmount(mountPoint);
  }

  /** A directory that the containers of the pod share: on the guest's disk, or in another volume (a part of it). */
  #local(storage: Storage, mountPoint: string): () => Promise<void> {
    const option = storage.options.find((o) => o.startsWith("mode="));
    const mode = option === undefined ? 0o755 : Number.parseInt(option.slice(5), 8);
    if (!(mode >= 0 && mode <= 0o7777))
      throw new Fault("invalid_argument", `storage option "${option}" is not an octal mode`);
    const group = groupOf(storage);
    if ([...this.#mounted.keys()].some((volume) => mountPoint.startsWith(`${volume}/`))) {
      // Containers made a file of that name: it is what they mean.
      if (existsSync(mountPoint) && !statSync(mountPoint).isDirectory()) return async () => undefined;
      this.#makeMountPoint(mountPoint, mode, group);
      return async () => undefined;
    }
    this.#serial += 1;
    const place = `${this.#paths.disk}/volumes/${this.#serial}`;
    mkdirSync(place, { recursive: true });
    chmodSync(place, mode);
    if (group !== undefined) giveToGroup(place, group);
    this.#makeMountPoint(mountPoint, 0o755);
    mountFlags(place, mountPoint, null, MS_BIND, null);
    return async () => {
      unmount(mountPoint);
      await rm(place, { recursive: true, force: true });
    };
  }

  /** Of the cloud: what is in it stays when the pod has ended. */
  #volume(storage: Storage, mountPoint: string): () => Promise<void> {
    const device = this.#volumes.deviceOf(storage);
    const options = storage.options.filter((o) => !o.startsWith("fsgid="));
    this.#makeMountPoint(mountPoint, 0o755);
    mount(device, mountPoint, storage.fstype, ["noatime", ...options]);
    const group = groupOf(storage);
    if (group !== undefined && !options.includes("ro")) giveToGroup(mountPoint, group);
    return async () => unmount(mountPoint);
  }

  /** The root filesystem of one container: its own changes over a tree that containers share. */
  #tree(storage: Storage, mountPoint: string, owner: string): () => Promise<void> {
    const lower = treePath(this.#paths, storage.source);
    if (!existsSync(lower)) {
      throw new Fault("not_found", `root filesystem tree "${storage.source}" was not sent to this pod VM`);
    }
    return this.#rootOver([lower], storage, mountPoint, owner);
  }

  #imageOf(owner: string): GuestImages {
    const images = this.#ready.get(owner);
    if (images !== undefined) return images;
    throw new Fault(
      "invalid_argument",
      `storage driver "${GUEST_PULL_DRIVER}" is for a container's root file system only`,
    );
  }

  #rootOver(lower: readonly string[], storage: Storage, mountPoint: string, owner: string): () => Promise<void> {
    const own = `${this.#paths.disk}/containers/${owner}`;
    this.#makeMountPoint(mountPoint, 0o755);
    mountOverlayRoot({ lower, own, mountPoint, options: storage.options });
    return async () => {
      unmount(mountPoint);
      await rm(own, { recursive: true, force: true }); // a container may have written very many files: not all at once
    };
  }

  #makeMountPoint(mountPoint: string, mode: number, group?: number): void {
    const base = this.#paths.run;
    if (!mountPoint.startsWith(`${base}/`) || mountPoint.split("/").includes("..")) {
      throw new Fault("invalid_argument", `storage mount point "${mountPoint}" is not below ${base}`);
    }
    const root = openSync(base, "r");
    try {
      const made = makeDirectoryBelow(root, mountPoint.slice(base.length + 1), 0o755);
      try {
        // By its descriptor: containers may change the way to it.
        chmodSync(`/proc/self/fd/${made}`, mode);
        if (group !== undefined) giveToGroup(`/proc/self/fd/${made}`, group);
      } finally {
        closeSync(made);
      }
    } finally {
      closeSync(root);
    }
  }
}

function groupOf(storage: Storage): number | undefined {
  const option = storage.options.find((o) => o.startsWith("fsgid="));
  if (option !== undefined) return Number.parseInt(option.slice(6), 10);
  return storage.fsGroup?.groupId;
}

function giveToGroup(path: string, gid: number): void {
  chownSync(path, 0, gid);
  chmodSync(path, (statSync(path).mode & 0o7777) | 0o2770);
}
