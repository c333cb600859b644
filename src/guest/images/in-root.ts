import { closeSync, mkdirSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { libc } from "../system/libc.ts";
import { printable } from "./tar-reader.ts";

const SYS_OPENAT2 = 437; // the same on every architecture
const O_PATH = 0x200000;
const O_CLOEXEC = 0x80000;
const O_DIRECTORY = process.arch === "arm64" ? 0x4000 : 0x10000;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_IN_ROOT = 0x10n;

/** Bytes of a path below /proc: what it names is found in an open directory. `name` is one character for each byte. */
export function pathIn(directory: number, name: string): Buffer {
  return Buffer.from(`/proc/self/fd/${directory}/${name}`, "latin1");
}

/** The same for the C library. */
export function cPathIn(directory: number, name: string): Buffer {
  return Buffer.from(`/proc/self/fd/${directory}/${name}\0`, "latin1");
}

/**
 * Opens a directory as if `root` were `/`: symbolic links and `..` lead nowhere else, whatever the tree is like.
 * @param path bytes, one character for each
 * @throws Error ENOENT, ENOTDIR, ELOOP
 */
export function openInRoot(root: number, path: string): number {
  const how = new BigUint64Array([
    BigInt(O_PATH | O_CLOEXEC | O_DIRECTORY),
    0n,
    RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT,
  ]);
  const bytes = Buffer.from(`${path === "" ? "." : path}\0`, "latin1");
  return libc(
    "long syscall(long number, ...)",
    SYS_OPENAT2,
    "int",
    root,
    "const void *",
    bytes,
    "void *",
    how,
    "size_t",
    how.byteLength,
  );
}

/**
 * As openInRoot, and makes the directories that are missing (0755, root's).
 * @param onMade told the path of each
 * @throws Fault invalid_argument when something on the way is no directory
 */
export function makeInRoot(root: number, path: string, onMade: (path: string) => void): number {
  try {
    return openInRoot(root, path);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw onTheWay(e, path);
  }
  const slash = path.lastIndexOf("/");
  const parent = makeInRoot(root, slash < 0 ? "" : path.slice(0, slash), onMade);
  try {
    mkdirSync(pathIn(parent, path.slice(slash + 1)), { mode: 0o755 });
    onMade(path);
    return openInRoot(root, path);
  } catch (e) {
    throw onTheWay(e, path);
  } finally {
    closeSync(parent);
  }
}

function onTheWay(e: unknown, path: string): unknown {
  const { code } = e as NodeJS.ErrnoException;
  if (code !== "ENOTDIR" && code !== "EEXIST" && code !== "ELOOP") return e;
  return new Fault(
    "invalid_argument",
    `the layer puts something below "${printable(path)}", which is no directory (${code})`,
    {},
    { cause: e },
  );
}
