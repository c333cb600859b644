import { realpath, stat, statfs } from "node:fs/promises";
import { isSubPath, type SourceFacts } from "../agent/index.ts";
import type { NodeFiles } from "../volumes/index.ts";
import { mountOrigin } from "./mount-origin.ts";

/** Source: Linux include/uapi/linux/magic.h. */
const TMPFS_MAGIC = 0x01021994;
const HUGETLBFS_MAGIC = 0x958458f6;
const SETGID = 0o2000;

/** What the node knows of a mount's source; undefined when there is no such path. */
export async function sourceFacts(source: string, files: NodeFiles): Promise<SourceFacts | undefined> {
  const at = files.reach(source);
  try {
    const s = await stat(at);
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
    const { type, blocks, bsize } = await statfs(at);
    const filesystem = type === TMPFS_MAGIC ? "tmpfs" : type === HUGETLBFS_MAGIC ? "hugetlbfs" : "other";
    const origin = isSubPath(source) ? mountOrigin(source, await files.mountinfo()) : undefined;
    return {
      kind,
      filesystem,
      setgid: (s.mode & SETGID) !== 0 ? s.gid : undefined,
      // What only the node sees is in a mount, not behind a link.
      realPath: await realpath(source).catch(() => source),
      ...(filesystem === "tmpfs" && blocks > 0 ? { tmpfsBytes: blocks * bsize } : {}),
      ...(origin === undefined ? {} : { origin }),
    };
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
