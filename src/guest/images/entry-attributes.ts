import { chmodSync, fchmodSync, fchownSync, futimesSync, lchownSync, lutimesSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { libc } from "../system/libc.ts";
import { cPathIn, pathIn } from "./in-root.ts";
import { printable, type TarEntry } from "./tar-reader.ts";

/** Source: Linux XATTR_NAME_MAX, XATTR_SIZE_MAX. */
const OVERLAY_XATTR = /^(trusted|user)\.overlay\./;

/** Owner, mode, extended attributes and time of an open file, in the order in which none undoes another. */
export function setFileAttributes(fd: number, entry: TarEntry): void {
  if (entry.uid !== 0 || entry.gid !== 0) fchownSync(fd, entry.uid, entry.gid);
  fchmodSync(fd, entry.mode);
  for (const [name, value] of entry.xattrs) setXattr(Buffer.from(`/proc/self/fd/${fd}\0`), name, value, entry, true);
  futimesSync(fd, entry.mtime, entry.mtime);
}

/** The same for anything that has a name in an open directory; a symbolic link's own. */
export function setNamedAttributes(directory: number, name: string, entry: TarEntry): void {
  const path = pathIn(directory, name);
  lchownSync(path, entry.uid, entry.gid);
  if (entry.kind !== "symlink") chmodSync(path, entry.mode); // it was made here and is no symbolic link
  for (const [key, value] of entry.xattrs) setXattr(cPathIn(directory, name), key, value, entry, false);
  lutimesSync(path, entry.mtime, entry.mtime);
}

/** Hides what lower layers have in this directory. Source: Linux Documentation/filesystems/overlayfs.rst */
export function makeOpaque(directory: number, name: string): void {
  set(cPathIn(directory, name), "trusted.overlay.opaque", Buffer.from("y"), false);
}

function setXattr(path: Buffer, name: string, value: string, entry: TarEntry, follow: boolean): void {
  // They would make overlay show other files than the layer has.
  if (OVERLAY_XATTR.test(name)) return;
  try {
    set(path, name, Buffer.from(value, "latin1"), follow);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // As other runtimes do: an attribute that this file system cannot keep is no reason not to run the image.
    if (code === "EOPNOTSUPP" || (code === "EPERM" && name.startsWith("user."))) return;
    throw new Fault(
      Fault.from(cause).code,
      `extended attribute ${printable(name)} of "${printable(entry.name)}" cannot be set (${code})`,
      {},
      { cause },
    );
  }
}

function set(path: Buffer, name: string, value: Buffer, follow: boolean): void {
  libc(
    `int ${follow ? "setxattr" : "lsetxattr"}(const void *path, const char *name, const void *value, size_t size, int flags)`,
    path,
    name,
    value,
    value.length,
    0,
  );
}
