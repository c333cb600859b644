import { Fault } from "../../base/fault.ts";
import { BLOCK, numberAt } from "./tar-header.ts";

/** A piece of a sparse file that has data. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface SparseMap {
  readonly extents: readonly Extent[];
  /** Of the file with its holes, bytes. */
  readonly realSize: number;
}

/** More is an attack on this process's memory. */
const MAX_EXTENTS = 100_000;
/** Offset and number of extents in the header of GNU's old form, and in each block behind it. */
const OLD_HEADER = { at: 386, count: 4, more: 482, realSize: 483 } as const;
const OLD_BLOCK = { at: 0, count: 21, more: 504 } as const;

/** What a sparse entry's map is read from, in order. */
export type ReadBlock = () => Promise<Buffer>;

/** GNU's old form: the map is in the header, and in blocks between it and the data. Source: GNU tar manual, "Old GNU Format" */
export async function oldSparseMap(header: Buffer, readBlock: ReadBlock): Promise<SparseMap> {
  const extents: Extent[] = [];
  const take = (block: Buffer, at: number, count: number): void => {
    for (let i = 0; i < count; i += 1) {
      const length = numberAt(block, at + i * 24 + 12, 12);
      if (length > 0) extents.push({ offset: numberAt(block, at + i * 24, 12), length });
    }
  };
  take(header, OLD_HEADER.at, OLD_HEADER.count);
  let more = header[OLD_HEADER.more] !== 0;
  while (more) {
    const block = await readBlock();
    take(block, OLD_BLOCK.at, OLD_BLOCK.count);
    more = block[OLD_BLOCK.more] !== 0;
    if (extents.length > MAX_EXTENTS) throw damaged();
  }
  return checked({ extents, realSize: numberAt(header, OLD_HEADER.realSize, 12) });
}

/**
 * PAX forms 0.0, 0.1 (in the extended header) and 1.0 (in front of the data).
 * @returns the map and how many bytes of data it took, or undefined when the entry is not sparse
 */
export async function paxSparseMap(
  pax: ReadonlyMap<string, string>,
  pairs: readonly number[],
  readBlock: ReadBlock,
): Promise<(SparseMap & { readonly mapBytes: number }) | undefined> {
  const realSize = Number(pax.get("GNU.sparse.realsize") ?? pax.get("GNU.sparse.size"));
  if (pax.get("GNU.sparse.major") === "1") {
    const { numbers, bytes } = await mapInFront(readBlock);
    return { ...checked({ extents: pairsToExtents(numbers), realSize }), mapBytes: bytes };
  }
  const map = pax.get("GNU.sparse.map");
  const numbers = map === undefined ? pairs : map.split(",").map(Number);
  if (map === undefined && pax.get("GNU.sparse.size") === undefined) return undefined;
  return { ...checked({ extents: pairsToExtents(numbers), realSize }), mapBytes: 0 };
}

/** Decimal numbers, one a line, padded to a block: how many extents, then offset and length of each. */
async function mapInFront(readBlock: ReadBlock): Promise<{ numbers: readonly number[]; bytes: number }> {
  let text = "";
  let bytes = 0;
  let count: number | undefined;
  for (;;) {
    text += (await readBlock()).toString("latin1");
    bytes += BLOCK;
    const lines = text.split("\n");
    count ??= lines.length > 1 ? Number(lines[0]) : undefined;
    if (count !== undefined && (!Number.isSafeInteger(count) || count < 0 || count > MAX_EXTENTS)) throw damaged();
    if (count !== undefined && lines.length > 1 + 2 * count)
      return { numbers: lines.slice(1, 1 + 2 * count).map(Number), bytes };
    if (bytes > MAX_EXTENTS * 48) throw damaged();
  }
}

function pairsToExtents(numbers: readonly number[]): readonly Extent[] {
  if (numbers.length % 2 !== 0 || numbers.length > 2 * MAX_EXTENTS) throw damaged();
  const extents: Extent[] = [];
  for (let i = 0; i < numbers.length; i += 2)
    extents.push({ offset: numbers[i] as number, length: numbers[i + 1] as number });
  return extents.filter((e) => e.length > 0);
}

function checked(map: SparseMap): SparseMap {
  let end = 0;
  for (const { offset, length } of map.extents) {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < end || length < 0) throw damaged();
    end = offset + length;
  }
  if (!Number.isSafeInteger(map.realSize) || map.realSize < end) throw damaged();
  return map;
}

function damaged(): Fault {
  return new Fault("invalid_argument", "the archive is damaged: the map of a sparse file cannot be read");
}
