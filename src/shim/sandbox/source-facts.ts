import { stat, statfs } from "node:fs/promises";
import type { SourceFacts } from "../agent/index.ts";

/** Source: Linux include/uapi/linux/magic.h. */
const TMPFS_MAGIC = 0x01021994;
const HUGETLBFS_MAGIC = 0x958458f6;
const SETGID = 0o2000;

/** What the node knows of a mount's source; undefined when there is no such path. */
export async function sourceFacts(source: string): Promise<SourceFacts | undefined> {
  try {
    const s = await stat(source);
    const kind = s.isFile()
      ? "file"
      : s.isDirectory()
        ? "directory"
        : s.isBlockDevice()
          ? "block"
          : s.isCharacterDevice()
            ? "character"
            : s.isFIFO()
              ? "fifo"
              : "socket";
    const { type } = await statfs(source);
    const filesystem = type === TMPFS_MAGIC ? "tmpfs" : type === HUGETLBFS_MAGIC ? "hugetlbfs" : "other";
    return { kind, filesystem, setgid: (s.mode & SETGID) !== 0 ? s.gid : undefined };
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw e;
  }
}

/** Size of the tmpfs at a path, bytes; undefined when nothing of its own is mounted there. */
export async function tmpfsSize(path: string): Promise<number | undefined> {
  try {
    const fs = await statfs(path);
    return fs.type === TMPFS_MAGIC && fs.blocks > 0 ? fs.blocks * fs.bsize : undefined;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw e;
  }
}
