import { createHash, randomBytes, randomUUID } from "node:crypto";
import { readdir, rmdir, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { background, type Call, withDeadline } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import type { TreeReceipt, TreeSpec } from "../../relay/index.ts";

/** A mount of the Create request. */
export interface RootfsMount {
  readonly type: string;
  readonly source: string;
  /** Below the root file system; "" = the root itself. */
  readonly target: string;
  readonly options: readonly string[];
}

export interface RootfsSource {
  /** Empty: the spec's root.path is the tree. */
  readonly mounts: readonly RootfsMount[];
  readonly bundle: string;
  /** root.path of the spec. */
  readonly rootPath: string;
}

export interface RootfsDeps {
  /** Below it each tree is mounted for as long as it is sent. The process has mounts of its own (unshare --mount). */
  readonly mountDir: string;
  readonly log: Logger;
}

/**
 * Sends a container's root file system from the node into its VM: mounts what containerd's snapshotter gave, read-only
 * and out of sight, hands the tree to `send`, unmounts it at once.
 * @returns the tree's name in the guest
 * @throws Fault naming the mount or the path
 */
export async function sendRootfs(
  deps: RootfsDeps,
  source: RootfsSource,
  send: (tree: TreeSpec, call: Call) => Promise<TreeReceipt>,
  call: Call,
): Promise<{ readonly treeId: string; readonly receipt: TreeReceipt }> {
  if (source.mounts.length === 0) {
    const path = await plainTree(source);
    const treeId = uniqueTreeId();
    return { treeId, receipt: await send({ treeId, path }, call) };
  }
  const treeId = await identify(source.mounts);
  const path = join(deps.mountDir, randomBytes(8).toString("hex"));
  await mkdirPrivate(path);
  try {
    for (const mount of source.mounts) await mountReadOnly(mount, path, call);
    return { treeId, receipt: await send({ treeId, path }, call) };
  } finally {
    await unmount(path, deps.log);
  }
}

/** Finds what is wrong with a root file system without mounting it. @throws as sendRootfs does */
export async function checkRootfs(source: RootfsSource): Promise<void> {
  if (source.mounts.length === 0) await plainTree(source);
  await identify(source.mounts);
}

/**
 * Names the content: the same name for the unwritten overlay of the same layers, so that a VM gets each image once.
 * A layer is known by its directory's path, inode and change time.
 * @throws Fault invalid_argument when a layer is not there
 */
export async function identify(mounts: readonly RootfsMount[]): Promise<string> {
  const [mount, ...more] = mounts;
  if (mount === undefined || more.length > 0 || mount.type !== "overlay") return uniqueTreeId();
  const value = (name: string): string | undefined =>
    mount.options.find((o) => o.startsWith(`${name}=`))?.slice(name.length + 1);
  const lower = value("lowerdir");
  if (lower === undefined) return uniqueTreeId();
  const upper = value("upperdir");
  try {
    if (upper !== undefined && (await readdir(upper)).length > 0) return uniqueTreeId();
    const hash = createHash("sha256");
    for (const dir of lower.split(":")) {
      const s = await stat(dir, { bigint: true });
      hash.update(`${dir}\0${s.dev}\0${s.ino}\0${s.ctimeNs}\0${s.mtimeNs}\0`);
    }
    return `overlay-${hash.digest("hex")}`;
  } catch (cause) {
    throw new Fault("invalid_argument", "a layer of the rootfs mount is not there", { layers: lower }, { cause });
  }
}

function uniqueTreeId(): string {
  return `tree-${randomUUID()}`;
}

/** `ctr run --rootfs` and CRI-O: no mounts, the spec's root.path is a directory of the node. */
async function plainTree(source: RootfsSource): Promise<string> {
  const path = isAbsolute(source.rootPath) ? source.rootPath : join(source.bundle, source.rootPath);
  const s = await stat(path).catch((cause: unknown) => {
    throw new Fault("invalid_argument", `root.path = "${source.rootPath}": ${path} cannot be read`, {}, { cause });
  });
  if (!s.isDirectory())
    throw new Fault("invalid_argument", `root.path = "${source.rootPath}": ${path} is not a directory`);
  if ((await readdir(path)).length === 0) {
    throw new Fault(
      "invalid_argument",
      `root.path = "${source.rootPath}": ${path} is empty and containerd gave no rootfs mounts; name an image or a directory with a root file system`,
    );
  }
  return path;
}

async function mountReadOnly(mount: RootfsMount, root: string, call: Call): Promise<void> {
  const options = ["ro", ...mount.options.filter((o) => o !== "rw" && o !== "ro")];
  const type = mount.type === "bind" ? [] : ["-t", mount.type];
  try {
    // The new mount API, as util-linux 2.39 uses it, takes 256 bytes of lowerdir only.
    const args = [...type, "-o", options.join(","), mount.source, join(root, mount.target)];
    await exec("env", ["LIBMOUNT_FORCE_MOUNT2=always", "mount", ...args], call);
  } catch (cause) {
    const fault = Fault.from(cause);
    throw new Fault(
      fault.code,
      `rootfs mount of type "${mount.type}" from "${mount.source}" cannot be mounted on the node`,
      {},
      { cause },
    );
  }
}

/** Never deletes anything below `path`: should the mount still be there, only the empty directory's removal fails. */
async function unmount(path: string, log: Logger): Promise<void> {
  try {
    await exec("umount", ["--recursive", "--lazy", path], withDeadline(10_000, background()));
  } catch (err) {
    // Nothing was mounted when the mount itself failed.
    log.debug({ err, path }, "rootfs was not mounted");
  }
  await rmdir(path).catch((err: unknown) => log.warn({ err, path }, "rootfs mount point left behind"));
}

/** Takes away what a killed daemon left below the mount directory. Its mounts went with its mount namespace, if it had one. */
export async function clearMountDir(deps: RootfsDeps): Promise<void> {
  await mkdirPrivate(deps.mountDir);
  for (const name of await readdir(deps.mountDir)) await unmount(join(deps.mountDir, name), deps.log);
}
