import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import type { Call } from "../../base/call.ts";

const CHUNK = 1 << 20;
const ZEROS = Buffer.alloc(CHUNK);

/** Writes a file into another one at an offset; what is all zero is left out, so a sparse target stays sparse. */
export async function copyInto(target: FileHandle, offset: number, source: string, call: Call): Promise<void> {
  await using from = await open(source, "r");
  for await (const { data, at } of chunks(from, call)) {
    if (!isZero(data)) await target.write(data, 0, data.length, offset + at);
  }
}

/** SHA-256 of a file, in lower case hexadecimal digits. */
export async function sha256Of(path: string, call: Call): Promise<string> {
  const hash = createHash("sha256");
  await using from = await open(path, "r");
  for await (const { data } of chunks(from, call)) hash.update(data);
  return hash.digest("hex");
}

async function* chunks(file: FileHandle, call: Call): AsyncGenerator<{ readonly data: Buffer; readonly at: number }> {
  const buffer = Buffer.allocUnsafe(CHUNK);
  for (let at = 0; ; ) {
    call.signal.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, CHUNK, at);
    if (bytesRead === 0) return;
    yield { data: buffer.subarray(0, bytesRead), at };
    at += bytesRead;
  }
}

function isZero(data: Buffer): boolean {
  return data.equals(ZEROS.subarray(0, data.length));
}
