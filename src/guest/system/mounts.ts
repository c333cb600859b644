import { libc } from "./libc.ts";

const MOUNT =
  "int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)";

/** Mount options that are flags. Source: include/uapi/linux/mount.h; names as mount(8) has them. */
const FLAGS: Readonly<Record<string, { readonly set?: number; readonly clear?: number }>> = {
  defaults: {},
  ro: { set: 0x1 },
  rw: { clear: 0x1 },
  nosuid: { set: 0x2 },
  suid: { clear: 0x2 },
  nodev: { set: 0x4 },
  dev: { clear: 0x4 },
  noexec: { set: 0x8 },
  exec: { clear: 0x8 },
  sync: { set: 0x10 },
  async: { clear: 0x10 },
  remount: { set: 0x20 },
  dirsync: { set: 0x80 },
  noatime: { set: 0x400 },
  atime: { clear: 0x400 },
  nodiratime: { set: 0x800 },
  diratime: { clear: 0x800 },
  bind: { set: 0x1000 },
  rbind: { set: 0x5000 },
  relatime: { set: 0x200000 },
  strictatime: { set: 0x1000000 },
};

export const MS_BIND = 0x1000;
export const MS_PRIVATE_REC = 0x44000;
const MNT_DETACH = 2;

/** Splits mount(8) options into the flags and the text for the file system. */
export function parseMountOptions(options: readonly string[]): { readonly flags: number; readonly data: string } {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const flag = FLAGS[option];
    if (flag === undefined) data.push(option);
    else flags = (flags | (flag.set ?? 0)) & ~(flag.clear ?? 0);
  }
  return { flags, data: data.join(",") };
}

/** Mounts; options as mount(8) takes them. @throws Error with the errno's code */
export function mount(source: string, target: string, type: string, options: readonly string[] = []): void {
  const { flags, data } = parseMountOptions(options);
  mountFlags(source, target, type, flags, data === "" ? null : data);
}

export function mountFlags(
  source: string,
  target: string,
  type: string | null,
  flags: number,
  data: string | null,
): void {
  try {
    libc(MOUNT, source, target, type, flags, data);
  } catch (cause) {
    (cause as Error).message += ` ${type ?? "bind"} ${source} on ${target}`;
    throw cause;
  }
}

/** Unmounts lazily: open files keep working. Nothing mounted there is success. */
export function unmount(target: string): void {
  try {
    libc("int umount2(const char *target, int flags)", target, MNT_DETACH);
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code;
    if (code !== "EINVAL" && code !== "ENOENT") throw e; // EINVAL: not a mount point
  }
}
