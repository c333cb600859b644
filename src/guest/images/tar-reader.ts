import { Fault } from "../../base/fault.ts";
import { BLOCK, parseHeader, parsePax, type RawHeader } from "./tar-header.ts";
import { type Extent, oldSparseMap, paxSparseMap } from "./tar-sparse.ts";

export type EntryKind = "file" | "link" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One entry of an archive. Texts are bytes, one character (latin1) for each. */
export interface TarEntry {
  readonly kind: EntryKind;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the file, bytes. */
  readonly size: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: readonly (readonly [name: string, value: string])[];
  /** Where a sparse file's data goes; absent: it has no holes. */
  readonly extents?: readonly Extent[];
}

const KINDS: Readonly<Record<string, EntryKind>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  S: "file",
  "1": "link",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};
const XATTR = "SCHILY.xattr.";
/** Largest extended header or long name, bytes. Source: Linux takes xattrs of 64 KiB. */
const MAX_EXTENSION = 1 << 20;

/**
 * Reads a tar archive piece by piece: POSIX (PAX), GNU and old ones, sparse files in all their forms. tar-stream would do
 * for less: it decodes extended attributes as text, which destroys file capabilities, and knows no sparse files.
 */
export class TarReader {
  readonly #pieces: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes of the current entry that were not read yet, with and without padding. */
  #left = 0;
  #padding = 0;
  readonly #global = new Map<string, string>();

  constructor(source: AsyncIterable<Buffer>) {
    this.#pieces = source[Symbol.asyncIterator]();
  }

  /**
   * The next entry; what is left of the current one is skipped.
   * @returns undefined at the end, when everything behind it was read too
   * @throws Fault invalid_argument when the archive is damaged or ends early
   */
  async next(): Promise<TarEntry | undefined> {
    await this.#skip(this.#left + this.#padding);
    const pax = new Map(this.#global);
    const pairs: number[] = [];
    for (;;) {
      const block = await this.#block();
      const raw = block === undefined ? undefined : parseHeader(block);
      if (block === undefined || raw === undefined) {
        await this.#toTheEnd();
        return undefined;
      }
      switch (raw.type) {
        case "x":
          this.#takePax(pax, pairs, await this.#extension(raw.size));
          continue;
        case "g":
          this.#takePax(this.#global, [], await this.#extension(raw.size));
          for (const [key, value] of this.#global) if (!pax.has(key)) pax.set(key, value);
          continue;
        case "L":
          pax.set("path", untilNul(await this.#extension(raw.size)));
          continue;
        case "K":
          pax.set("linkpath", untilNul(await this.#extension(raw.size)));
          continue;
        default:
          return await this.#entry(raw, block, pax, pairs);
      }
    }
  }

  /** The next piece of the current entry's data; undefined at its end. */
  async read(): Promise<Buffer | undefined> {
    if (this.#left === 0) return undefined;
    const piece = await this.#some(this.#left);
    this.#left -= piece.length;
    return piece;
  }

  async #entry(
    raw: RawHeader,
    block: Buffer,
    pax: ReadonlyMap<string, string>,
    pairs: readonly number[],
  ): Promise<TarEntry> {
    const name = pax.get("GNU.sparse.name") ?? pax.get("path") ?? raw.name;
    let kind = KINDS[raw.type];
    if (kind === undefined)
      throw new Fault("unimplemented", `entry "${printable(name)}" is of type "${raw.type}", which is not known here`);
    if (kind === "file" && name.endsWith("/")) kind = "directory"; // as old archives have them
    const stored = kind === "file" ? numberOf(pax, "size", raw.size) : 0;
    this.#begin(stored);
    let sparse: { extents: readonly Extent[]; realSize: number } | undefined;
    if (kind === "file") {
      const inside = async (): Promise<Buffer> => {
        if (this.#left < BLOCK) throw early();
        this.#left -= BLOCK;
        return this.#exactly(BLOCK);
      };
      const between = (): Promise<Buffer> => this.#exactly(BLOCK);
      sparse = raw.type === "S" ? await oldSparseMap(block, between) : await paxSparseMap(pax, pairs, inside);
    }
    const xattrs = [...pax].flatMap(([key, value]) =>
      key.startsWith(XATTR) ? [[key.slice(XATTR.length), value] as const] : [],
    );
    return {
      kind,
      name,
      linkName: pax.get("linkpath") ?? raw.linkName,
      mode: raw.mode,
      uid: numberOf(pax, "uid", raw.uid),
      gid: numberOf(pax, "gid", raw.gid),
      size: sparse?.realSize ?? stored,
      mtime: numberOf(pax, "mtime", raw.mtime),
      major: raw.major,
      minor: raw.minor,
      xattrs,
      ...(sparse === undefined ? {} : { extents: sparse.extents }),
    };
  }

  #takePax(into: Map<string, string>, pairs: number[], body: Buffer): void {
    for (const [key, value] of parsePax(body)) {
      if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") pairs.push(Number(value));
      else if (value === "" && !key.startsWith(XATTR)) into.delete(key);
      else into.set(key, value);
    }
  }

  async #extension(size: number): Promise<Buffer> {
    if (size > MAX_EXTENSION)
      throw new Fault(
        "invalid_argument",
        `the archive has an extended header of ${size} bytes, ${MAX_EXTENSION} is the limit`,
      );
    const body = await this.#exactly(size);
    await this.#skip(paddingOf(size));
    return body;
  }

  #begin(size: number): void {
    if (size < 0) throw new Fault("invalid_argument", "the archive is damaged: a size is negative");
    this.#left = size;
    this.#padding = paddingOf(size);
  }

  async #block(): Promise<Buffer | undefined> {
    if (this.#rest.length === 0 && !(await this.#more())) return undefined; // some writers leave the end out
    return await this.#exactly(BLOCK);
  }

  async #exactly(length: number): Promise<Buffer> {
    if (this.#rest.length >= length) return this.#some(length);
    const whole = Buffer.alloc(length);
    for (let at = 0; at < length; ) at += (await this.#some(length - at)).copy(whole, at);
    return whole;
  }

  /** At least one byte, at most `max`. */
  async #some(max: number): Promise<Buffer> {
    if (this.#rest.length === 0 && !(await this.#more())) throw early();
    const piece = this.#rest.subarray(0, max);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }

  async #skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) left -= (await this.#some(left)).length;
    this.#left = 0;
    this.#padding = 0;
  }

  /** What follows the end (padding, for the most part) belongs to the bytes that are hashed. */
  async #toTheEnd(): Promise<void> {
    this.#rest = Buffer.alloc(0);
    while (await this.#more()) this.#rest = Buffer.alloc(0);
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const next = await this.#pieces.next();
      if (next.done) return false;
      if (next.value.length === 0) continue;
      this.#rest = next.value;
      return true;
    }
  }
}

/** As text for a message. */
export function printable(bytes: string): string {
  return Buffer.from(bytes, "latin1").toString("utf8").slice(0, 300);
}

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

function untilNul(body: Buffer): string {
  const end = body.indexOf(0);
  return body.toString("latin1", 0, end < 0 ? body.length : end);
}

function numberOf(pax: ReadonlyMap<string, string>, key: string, otherwise: number): number {
  const text = pax.get(key);
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isFinite(value) || (key !== "mtime" && !Number.isSafeInteger(value)))
    throw new Fault("invalid_argument", `the archive is damaged: ${key} "${printable(text)}" is no number`);
  return value;
}

function early(): Fault {
  return new Fault("invalid_argument", "the archive is damaged: it ends in the middle");
}
