import { Fault } from "../../base/fault.ts";

/** One block of a tar archive. */
export const BLOCK = 512;

/** Texts of an archive are bytes, whatever their encoding: one character (latin1) for each. */
export interface RawHeader {
  readonly name: string;
  readonly linkName: string;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  readonly major: number;
  readonly minor: number;
}

/**
 * Reads a header block.
 * @returns undefined for a block of zeros, which ends an archive
 * @throws Fault invalid_argument when it is none
 */
export function parseHeader(block: Buffer): RawHeader | undefined {
  let sum = 8 * 32; // the checksum's own field counts as spaces
  for (let i = 0; i < BLOCK; i += 1) if (i < 148 || i >= 156) sum += block[i] as number;
  const expected = numberAt(block, 148, 8);
  if (sum !== expected) {
    if (sum === 8 * 32 && expected === 0) return undefined;
    throw new Fault("invalid_argument", "the archive is damaged: a header's checksum is wrong");
  }
  // Only POSIX has a prefix; GNU keeps times in its place.
  const posix = block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = posix ? textAt(block, 345, 155) : "";
  const name = textAt(block, 0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    linkName: textAt(block, 157, 100),
    type: String.fromCharCode(block[156] as number),
    mode: numberAt(block, 100, 8) & 0o7777,
    uid: numberAt(block, 108, 8),
    gid: numberAt(block, 116, 8),
    size: numberAt(block, 124, 12),
    mtime: numberAt(block, 136, 12),
    major: numberAt(block, 329, 8),
    minor: numberAt(block, 337, 8),
  };
}

/** Octal, or binary with the first bit set. @throws Fault invalid_argument */
export function numberAt(block: Buffer, start: number, length: number): number {
  const first = block[start] as number;
  if ((first & 0x80) !== 0) {
    let value = first === 0xff ? -1n : BigInt(first & 0x7f);
    for (let i = start + 1; i < start + length; i += 1) value = value * 256n + BigInt(block[i] as number);
    const number = Number(value);
    if (!Number.isSafeInteger(number))
      throw new Fault("invalid_argument", "the archive is damaged: a number is too large");
    return number;
  }
  const text = textAt(block, start, length).trim();
  if (text === "") return 0;
  if (!/^[0-7]+$/.test(text))
    throw new Fault("invalid_argument", `the archive is damaged: "${text}" is no number of a header`);
  return Number.parseInt(text, 8);
}

function textAt(block: Buffer, start: number, length: number): string {
  const end = block.indexOf(0, start);
  return block.toString("latin1", start, end < 0 || end > start + length ? start + length : end);
}

/**
 * Records of a PAX header: `<length> <key>=<value>\n`, values as bytes. An empty value takes a setting back.
 * @throws Fault invalid_argument
 */
export function parsePax(body: Buffer): readonly (readonly [key: string, value: string])[] {
  const records: (readonly [string, string])[] = [];
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const length = Number(body.toString("latin1", at, space < 0 ? at : space));
    const end = at + length;
    const equals = body.indexOf(0x3d, space);
    if (space < 0 || !Number.isSafeInteger(length) || end > body.length || equals < 0 || equals >= end || length < 5)
      throw new Fault("invalid_argument", "the archive is damaged: an extended header cannot be read");
    records.push([body.toString("latin1", space + 1, equals), body.toString("latin1", equals + 1, end - 1)]);
    at = end;
  }
  return records;
}
