import { chmodSync, closeSync, mkdirSync } from "node:fs";
import { libc } from "./libc.ts";

const SYS_OPENAT2 = 437; // the same on every architecture
const O_PATH = 0x200000;
const O_CLOEXEC = 0x80000;
const O_DIRECTORY = process.arch === "arm64" ? 0x4000 : 0x10000;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_NO_SYMLINKS = 0x04n;
const RESOLVE_BENEATH = 0x08n;

/**
 * Opens a directory below `root` so that no symbolic link and no `..` on the way can lead anywhere else, however a
 * container changes the tree meanwhile. Use it as `/proc/self/fd/<n>/<name>` and close it.
 * @param relative "" for `root` itself
 * @throws Error ELOOP (a symbolic link on the way), EXDEV (leaves the root), ENOENT, ENOTDIR
 */
export function openDirectoryBelow(root: number, relative: string): number {
  const how = new BigUint64Array([
    BigInt(O_PATH | O_CLOEXEC | O_DIRECTORY),
    0n,
    RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
  ]);
  return libc(
    "long syscall(long number, ...)",
    SYS_OPENAT2,
    "int",
    root,
    "const char *",
    relative === "" ? "." : relative,
    "void *",
    how,
    "size_t",
    how.byteLength,
  );
}

/**
 * Makes a directory below `root` with the parents it lacks and opens it, with the same promise as openDirectoryBelow.
 * @param mode of each directory made here, whatever the umask
 */
export function makeDirectoryBelow(root: number, relative: string, mode: number): number {
  let directory = openDirectoryBelow(root, "");
  for (const name of relative.split("/").filter((part) => part !== "" && part !== ".")) {
    const parent = directory;
    try {
      directory = openOrMake(parent, name, mode);
    } finally {
      closeSync(parent);
    }
  }
  return directory;
}

function openOrMake(parent: number, name: string, mode: number): number {
  try {
    return openDirectoryBelow(parent, name);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw e;
  }
  mkdirSync(`/proc/self/fd/${parent}/${name}`, { mode });
  const made = openDirectoryBelow(parent, name);
  chmodSync(`/proc/self/fd/${made}`, mode);
  return made;
}
