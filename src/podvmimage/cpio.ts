/** An entry of an initrd. Directories come before what is in them. */
export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string;
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Of a device node. */
  readonly device?: readonly [major: number, minor: number];
}

const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;

/** A directory of an initrd. */
export function directory(path: string): CpioEntry {
  return { path, mode: S_IFDIR | 0o755 };
}

/** A file of an initrd. */
export function file(path: string, data: Uint8Array | string, mode = 0o644): CpioEntry {
  return { path, mode: S_IFREG | mode, data: typeof data === "string" ? Buffer.from(data) : data };
}

/** A character device of an initrd. */
export function characterDevice(path: string, major: number, minor: number): CpioEntry {
  return { path, mode: S_IFCHR | 0o666, device: [major, minor] };
}

/**
 * A cpio archive in the "newc" format that the kernel unpacks as its initial root. All owners are root, all times 0: equal
 * input gives equal bytes.
 * Source: Documentation/driver-api/early-userspace/buffer-format.rst
 */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const trailer: CpioEntry = { path: "TRAILER!!!", mode: 0 };
  [...entries, trailer].forEach((entry, index) => {
    const data = entry.data ?? new Uint8Array(0);
    const name = Buffer.from(`${entry.path}\0`);
    const [major, minor] = entry.device ?? [0, 0];
    const fields = [index + 1, entry.mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length, 0];
    const header = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, "0")).join("")}`);
    parts.push(header, name, padding(header.length + name.length), data, padding(data.length));
  });
  return Buffer.concat(parts);
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
