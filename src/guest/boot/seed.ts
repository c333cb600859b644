import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../../base/fault.ts";

const SECTOR = 2048;
const FIRST_DESCRIPTOR = 16;
const PRIMARY = 1;
const JOLIET = 2;
const TERMINATOR = 255;
/** A seed of ours has two small files; more is not read. */
const MAX_FILE = 1 << 20;

/** How long the disk with the seed may take to appear, ms. */
const PATIENCE_MS = 10_000;

/**
 * User-data of the NoCloud seed: an ISO 9660 volume labelled "cidata" on any block device.
 * It is read without mounting: the one file does not deserve a file system module and its loading time.
 * @throws Fault not_found when no such volume appears
 */
export async function readSeed(
  options: { readonly signal?: AbortSignal; readonly sysBlock?: string; readonly dev?: string } = {},
): Promise<string> {
  const { sysBlock = "/sys/class/block", dev = "/dev" } = options;
  const pause = options.signal === undefined ? {} : { signal: options.signal };
  const given = "/run/kata-remote/user-data";
  for (const end = performance.now() + PATIENCE_MS; ; ) {
    if (existsSync(given)) return readFileSync(given, "utf8");
    for (const name of readdirSync(sysBlock).sort()) {
      if (/^(loop|ram|zram|dm-)/.test(name)) continue;
      const text = readVolume(`${dev}/${name}`);
      if (text !== undefined) return text;
    }
    if (performance.now() > end) {
      throw new Fault("not_found", 'no user-data: no disk carries a NoCloud seed (ISO 9660, label "cidata")');
    }
    await delay(20, undefined, pause);
  }
}

/** user-data of one volume, or undefined when it is not a seed. */
export function readVolume(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return undefined; // no medium in the drive
  }
  try {
    return new IsoVolume(fd).file("user-data")?.toString("utf8");
  } catch (e) {
    if (e instanceof RangeError || (e as NodeJS.ErrnoException).code !== undefined) return undefined; // not this format
    throw e;
  } finally {
    closeSync(fd);
  }
}

/**
 * Just enough of ISO 9660, with Joliet names where there are any (ECMA-119; Joliet specification). The stock adaptor's
 * volumes have none: their plain names are in lower case.
 */
class IsoVolume {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** A file of the root directory. */
  file(name: string): Buffer | undefined {
    let label: string | undefined;
    let plain: Buffer | undefined;
    let joliet: Buffer | undefined;
    for (let sector = FIRST_DESCRIPTOR; sector < FIRST_DESCRIPTOR + 16; sector += 1) {
      const descriptor = this.#read(sector, SECTOR);
      if (descriptor.toString("latin1", 1, 6) !== "CD001") return undefined;
      const type = descriptor[0];
      if (type === TERMINATOR) break;
      if (type === PRIMARY) {
        label = descriptor.toString("latin1", 40, 72).replace(/[ \0]+$/, "");
        plain = descriptor.subarray(156, 190);
      }
      if (type === JOLIET && /^%\/[@CE]/.test(descriptor.toString("latin1", 88, 91)))
        joliet = descriptor.subarray(156, 190);
    }
    const root = joliet ?? plain;
    if (label?.toLowerCase() !== "cidata" || root === undefined) return undefined;
    const directory = this.#extent(root);
    for (let at = 0; at < directory.length; ) {
      const length = directory[at] ?? 0;
      if (length === 0) {
        at = (Math.floor(at / SECTOR) + 1) * SECTOR; // records do not cross sectors
        continue;
      }
      const record = directory.subarray(at, at + length);
      if (entryName(record, joliet !== undefined) === name) return this.#extent(record);
      at += length;
    }
    return undefined;
  }

  /** Content that a directory record points to. */
  #extent(record: Buffer): Buffer {
    const size = record.readUInt32LE(10);
    if (size > MAX_FILE) throw new RangeError("file of a seed is too large");
    return this.#read(record.readUInt32LE(2), size);
  }

  #read(sector: number, length: number): Buffer {
    const buffer = Buffer.alloc(length);
    const got = readSync(this.#fd, buffer, 0, length, sector * SECTOR);
    if (got < length) throw new RangeError("volume ends early");
    return buffer;
  }
}

/** Perhaps with a version behind it. Joliet: UTF-16 big endian. */
function entryName(record: Buffer, joliet: boolean): string {
  const bytes = record[32] ?? 0;
  if (bytes < 2) return ""; // the directory itself and its parent
  const raw = Buffer.from(record.subarray(33, 33 + bytes));
  const name = joliet ? raw.swap16().toString("utf16le") : raw.toString("latin1").toLowerCase();
  return name.replace(/;1$/, "");
}
