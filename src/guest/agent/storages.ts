import { chmodSync, chownSync, closeSync, existsSync, mkdirSync, openSync, rmSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import { TREE_STORAGE_DRIVER } from "../../guestwire/index.ts";
import { makeDirectoryBelow } from "../system/confined.ts";
import { mount, unmount } from "../system/mounts.ts";
import { type AgentPaths, treePath } from "./paths.ts";

interface Mounted {
  users: number;
  readonly undo: () => Promise<void>;
}

/** Storage drivers that this agent has, as GetGuestDetails lists them. */
export const STORAGE_DRIVERS: readonly string[] = ["ephemeral", TREE_STORAGE_DRIVER, "local"];

/** What is mounted for containers and the sandbox, counted by mount point: several containers may share a volume. */
export class Storages {
  readonly #paths: AgentPaths;
  readonly #mounted = new Map<string, Mounted>();

  constructor(paths: AgentPaths) {
    this.#paths = paths;
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
    this.#mounted.set(mountPoint, { users: 1, undo: this.#mount(storage, mountPoint, owner) });
    return mountPoint;
  }

  /** Undoes the mount with its last user. An unknown mount point is no error. */
  async release(mountPoint: string): Promise<void> {
    const mounted = this.#mounted.get(mountPoint);
    if (mounted === undefined) return;
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
      case TREE_STORAGE_DRIVER:
        return this.#tree(storage, mountPoint, owner);
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

  /** A plain directory that the containers of the pod share. */
  #local(storage: Storage, mountPoint: string): () => Promise<void> {
    const option = storage.options.find((o) => o.startsWith("mode="));
    const mode = option === undefined ? 0o755 : Number.parseInt(option.slice(5), 8);
    if (!(mode >= 0 && mode <= 0o7777))
      throw new Fault("invalid_argument", `storage option "${option}" is not an octal mode`);
    this.#makeMountPoint(mountPoint, mode);
    const group = groupOf(storage);
    if (group !== undefined) giveToGroup(mountPoint, group);
    return () => rm(mountPoint, { recursive: true, force: true });
  }

  /** The root filesystem of one container: its own changes over a tree that containers share. */
  #tree(storage: Storage, mountPoint: string, owner: string): () => Promise<void> {
    const lower = treePath(this.#paths, storage.source);
    if (!existsSync(lower)) {
      throw new Fault("not_found", `root filesystem tree "${storage.source}" was not sent to this pod VM`);
    }
    const own = `${this.#paths.disk}/containers/${owner}`;
    rmSync(own, { recursive: true, force: true });
    mkdirSync(`${own}/work`, { recursive: true });
    mkdirSync(`${own}/upper`);
    const root = statSync(lower); // the root directory shows the attributes of its uppermost layer
    chownSync(`${own}/upper`, root.uid, root.gid);
    chmodSync(`${own}/upper`, root.mode & 0o7777);
    this.#makeMountPoint(mountPoint, 0o755);
    // volatile: fsync of container data only costs time, since the disk does not outlive the VM.
    const layers = `lowerdir=${lower},upperdir=${own}/upper,workdir=${own}/work,volatile`;
    mount("overlay", mountPoint, "overlay", [...storage.options, layers]);
    return async () => {
      unmount(mountPoint);
      await rm(own, { recursive: true, force: true }); // a container may have written very many files: not all at once
    };
  }

  #makeMountPoint(mountPoint: string, mode: number): void {
    const base = this.#paths.run;
    if (!mountPoint.startsWith(`${base}/`) || mountPoint.split("/").includes("..")) {
      throw new Fault("invalid_argument", `storage mount point "${mountPoint}" is not below ${base}`);
    }
    const root = openSync(base, "r");
    try {
      closeSync(makeDirectoryBelow(root, mountPoint.slice(base.length + 1), 0o755));
    } finally {
      closeSync(root);
    }
    chmodSync(mountPoint, mode);
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
