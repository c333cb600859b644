export { type BootDiskInput, rootLabel, writeBootDisk } from "./boot-disk.ts";
export { convertDisk, DISK_FORMATS, type DiskFormat } from "./disk-format.ts";
export { sha256Of } from "./sparse-file.ts";
export { unifiedKernel } from "./unified-kernel.ts";
