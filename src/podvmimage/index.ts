export { DISK_FORMATS, type DiskFormat, sha256Of } from "./bootdisk/index.ts";
export { type BuiltDisk, type BuiltDisks, buildDisks, type DiskOptions, readDisks } from "./build-disks.ts";
export { type BuiltImage, buildImage } from "./build-image.ts";
export type { ImageOptions } from "./image-inputs.ts";
export type { SigningKey } from "./make-unified-kernel.ts";
