import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ended } from "../../base/retry.ts";
import { bytesPassed } from "../system/garbage.ts";
import { hashFor, requireDigest } from "./digest.ts";
import { LayerWriter } from "./layer-writer.ts";
import { TarReader } from "./tar-reader.ts";

export interface UnpackedLayer {
  /** Uncompressed, bytes. */
  readonly bytes: number;
  /** Directories without an entry of their own, to look as in the layers below. */
  readonly implicit: ReadonlySet<string>;
}

const CHUNK = { chunkSize: 64 * 1024 };
/** Enough to tell the compressions apart. */
const MAGIC_BYTES = 4;

/**
 * Unpacks a layer as its bytes come, without keeping them. What it is compressed with is told by its first bytes, since
 * media types are wrong now and then.
 * @param blob checks its own digest at its end
 * @param directory exists and is empty
 * @throws Fault aborted (diff id), invalid_argument (damaged, though its digest is right); whatever `blob` throws; Error ENOSPC
 */
export async function unpackLayer(
  layer: {
    readonly blob: AsyncIterable<Buffer>;
    readonly diffId: string;
    readonly directory: string;
    readonly what: string;
  },
  call: Call,
): Promise<UnpackedLayer> {
  const { diffId, directory, what } = layer;
  const pieces = layer.blob[Symbol.asyncIterator]();
  try {
    const head = await firstPieces(pieces);
    const hash = hashFor(diffId);
    let bytes = 0;
    using writer = new LayerWriter(directory);
    const untar = async (source: AsyncIterable<Buffer>): Promise<void> => {
      const reader = new TarReader(
        counted(source, (piece) => {
          hash.update(piece);
          bytes += piece.length;
          bytesPassed(piece.length);
        }),
      );
      for (let entry = await reader.next(); entry !== undefined; entry = await reader.next())
        await writer.write(entry, reader);
      writer.finish();
    };
    const source = rest(head, pieces);
    const unzip = decompressor(head);
    try {
      if (unzip === undefined) await pipeline(source, untar, { signal: call.signal });
      else await pipeline(source, unzip, untar, { signal: call.signal });
    } catch (e) {
      throw await reasonOf(e, pieces, what, call);
    }
    requireDigest(hash, diffId, `the content of ${what}`);
    return { bytes, implicit: writer.implicit };
  } finally {
    await pieces.return?.();
  }
}

/**
 * Bytes that cannot be unpacked are most often other bytes than the digest says, and that is what should be said: the
 * rest is read for it.
 */
async function reasonOf(e: unknown, pieces: AsyncIterator<Buffer>, what: string, call: Call): Promise<unknown> {
  if (call.signal.aborted) return ended(call, e);
  const code = (e as NodeJS.ErrnoException).code ?? "";
  const damaged = code.startsWith("Z_") || code.startsWith("ZSTD_") || code === "ERR_ZLIB_INITIALIZATION_FAILED";
  if (!damaged && !(e instanceof Fault && (e.code === "invalid_argument" || e.code === "unimplemented"))) return e;
  try {
    while (!(await pieces.next()).done);
  } catch (other) {
    return other;
  }
  const fault = Fault.from(e);
  const kind = fault.code === "unimplemented" ? "unimplemented" : "invalid_argument";
  return new Fault(kind, `${what} cannot be unpacked, though it is what its digest says`, {}, { cause: fault });
}

function decompressor(head: Buffer): Transform | undefined {
  if (head[0] === 0x1f && head[1] === 0x8b) return createGunzip(CHUNK);
  // A zstd frame, or one that is skipped, with which some writers begin.
  if (head.length >= MAGIC_BYTES) {
    const magic = head.readUInt32LE(0);
    if (magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return createZstdDecompress(CHUNK);
  }
  return undefined;
}

async function firstPieces(pieces: AsyncIterator<Buffer>): Promise<Buffer> {
  let head: Buffer = Buffer.alloc(0);
  while (head.length < MAGIC_BYTES) {
    const next = await pieces.next();
    if (next.done) break;
    head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  return head;
}

/** Leaving it does not end `pieces`. */
async function* rest(head: Buffer, pieces: AsyncIterator<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  if (head.length > 0) yield head;
  for (;;) {
    const next = await pieces.next();
    if (next.done) return;
    bytesPassed(next.value.length);
    yield next.value;
  }
}

async function* counted(
  source: AsyncIterable<Buffer>,
  take: (piece: Buffer) => void,
): AsyncGenerator<Buffer, void, undefined> {
  for await (const piece of source) {
    take(piece);
    yield piece;
  }
}
