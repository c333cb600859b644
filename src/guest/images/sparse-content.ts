import { ftruncateSync, write } from "node:fs";
import { promisify } from "node:util";
import { Fault } from "../../base/fault.ts";
import type { TarEntry, TarReader } from "./tar-reader.ts";

const writeAsync = promisify(write);

/**
 * Writes an entry's data where its extents say; what is between them stays a hole. Other work goes on meanwhile.
 * @throws Fault invalid_argument when there is less data than the extents say; Error ENOSPC
 */
export async function writeContent(fd: number, entry: TarEntry, data: TarReader): Promise<void> {
  const extents = entry.extents ?? [{ offset: 0, length: entry.size }];
  let piece: Buffer | undefined;
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; ) {
      if (piece === undefined || piece.length === 0) piece = await data.read();
      if (piece === undefined)
        throw new Fault("invalid_argument", "the archive is damaged: a sparse file has less data than its map says");
      const { bytesWritten } = await writeAsync(fd, piece, 0, Math.min(piece.length, length - done), offset + done);
      done += bytesWritten;
      piece = piece.subarray(bytesWritten);
    }
  }
  if (entry.extents !== undefined) ftruncateSync(fd, entry.size);
}
