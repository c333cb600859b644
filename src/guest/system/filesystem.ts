import { closeSync, openSync, readFileSync, statfsSync, statSync } from "node:fs";
import type { GuestLog } from "./guest-log.ts";
import { libc } from "./libc.ts";

/** Source: fs/ext4/ext4.h, _IOW('f', 16, __u64). */
const EXT4_IOC_RESIZE_FS = 0x40086610;

/**
 * Grows the ext4 file system that holds `path` to the size of its device, while it is in use: a provider may give a pod
 * VM a larger disk than the image's.
 */
export function growFilesystem(path: string, log: GuestLog): void {
  try {
    const { dev } = statSync(path);
    const device = `/sys/dev/block/${dev >> 8}:${dev & 0xff}/size`;
    const { bsize, blocks } = statfsSync(path);
    const deviceBlocks = Math.floor((Number(readFileSync(device, "utf8")) * 512) / bsize);
    if (deviceBlocks < blocks * 1.05) return; // metadata is not counted in `blocks`
    const fd = openSync(path, "r");
    try {
      const size = new BigUint64Array([BigInt(deviceBlocks)]);
      libc("int ioctl(int fd, unsigned long request, ...)", fd, EXT4_IOC_RESIZE_FS, "void *", size);
    } finally {
      closeSync(fd);
    }
    log.info("disk has grown", { fromMiB: toMiB(blocks * bsize), toMiB: toMiB(deviceBlocks * bsize) });
  } catch (e) {
    // The pod can run on what there is; the reason is worth a line.
    log.warn("disk could not be grown", { err: (e as Error).message });
  }
}

function toMiB(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}
