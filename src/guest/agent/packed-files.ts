import { setImmediate as turn } from "node:timers/promises";
import { Fault } from "../../base/fault.ts";
import { CopyFileRequest } from "../../gen/agent/agent.ts";
import { PACKED_FILES } from "../../guestwire/index.ts";
import type { ServerCall } from "../../ttrpc/index.ts";
import { copyFile, FileCopier } from "./copy-file.ts";

/** Between so many files other calls get their turn. */
const FILES_AT_ONCE = 32;

/** CopyFile, of one file or a pack of them. @throws Fault as copyFile does; invalid_argument for a broken pack */
export async function copyFiles(base: string, request: CopyFileRequest, call: ServerCall): Promise<void> {
  if (!call.metadata.some(([key]) => key === PACKED_FILES)) {
    copyFile(base, request);
    return;
  }
  const files = unpack(request.data);
  for (let left = true; left; ) {
    left = copySome(base, files);
    if (left) await turn();
  }
}

/** @returns whether there may be more */
function copySome(base: string, files: Generator<CopyFileRequest>): boolean {
  const copier = new FileCopier(base);
  try {
    for (let i = 0; i < FILES_AT_ONCE; i += 1) {
      const { value, done } = files.next();
      if (done === true) return false;
      copier.copy(value as CopyFileRequest);
    }
    return true;
  } finally {
    copier.close();
  }
}

function* unpack(data: Buffer): Generator<CopyFileRequest> {
  for (let at = 0; at < data.length; ) {
    const start = at + 4;
    const end = start <= data.length ? start + data.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (end > data.length) throw new Fault("invalid_argument", `a pack of files is cut off at byte ${at}`);
    yield CopyFileRequest.decode(data.subarray(start, end));
    at = end;
  }
}
