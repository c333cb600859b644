import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import type { Call } from "../../../src/base/call.ts";
import { ended } from "../../../src/base/retry.ts";

/** The only size of a snapshot's blocks. Source: EBS user guide, "EBS direct APIs". */
export const BLOCK_BYTES = 512 * 1024;
const ZERO = Buffer.alloc(BLOCK_BYTES);

/** A block that has to be sent. */
export interface DiskBlock {
  readonly index: number;
  /** Filled up with zeros at the disk's end. */
  readonly data: Buffer;
  /** SHA-256. */
  readonly digest: Buffer;
}

/** The blocks of a raw disk that are not all zero, in their order. */
export async function* diskBlocks(path: string, call: Call): AsyncGenerator<DiskBlock> {
  await using file = await open(path, "r");
  for (let index = 0; ; index += 1) {
    if (call.signal.aborted) throw ended(call);
    const data = Buffer.alloc(BLOCK_BYTES);
    const { bytesRead } = await file.read(data, 0, BLOCK_BYTES, index * BLOCK_BYTES);
    if (bytesRead === 0) return;
    if (data.equals(ZERO)) continue;
    yield { index, data, digest: createHash("sha256").update(data).digest() };
  }
}
