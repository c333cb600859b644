import { open } from "node:fs/promises";
import type { Call } from "../../../src/base/call.ts";
import { Fault } from "../../../src/base/fault.ts";
import { ended } from "../../../src/base/retry.ts";

/** Most that one request may write. Source: REST reference of Blob storage, Put Page. */
export const PART_BYTES = 4 << 20;
const FOOTER_BYTES = 512;
const ALIGNMENT = 1 << 20;
const ZERO = Buffer.alloc(PART_BYTES);

/** A part of a disk that is not all zero. */
export interface DiskPart {
  readonly offset: number;
  readonly bytes: number;
}

/**
 * Checks that a file is what Azure takes. Source: "Prepare a Windows VHD or VHDX to upload to Azure" and Linux's; VHD
 * specification 1.0: a fixed disk ends with a footer that begins with "conectix" and has disk type 2.
 * @returns its size in bytes
 * @throws Fault invalid_argument
 */
export async function checkVhd(path: string): Promise<number> {
  await using file = await open(path, "r");
  const { size } = await file.stat();
  const footer = Buffer.alloc(FOOTER_BYTES);
  if (size > FOOTER_BYTES) await file.read(footer, 0, FOOTER_BYTES, size - FOOTER_BYTES);
  const fixed = footer.toString("latin1", 0, 8) === "conectix" && footer.readUInt32BE(60) === 2;
  if (!fixed) throw new Fault("invalid_argument", `${path} is no VHD of fixed size: build it with --format vhd`);
  if ((size - FOOTER_BYTES) % ALIGNMENT !== 0) {
    const message = `${path} has ${size - FOOTER_BYTES} bytes and a footer: Azure takes whole MiB, build it with --format vhd`;
    throw new Fault("invalid_argument", message);
  }
  return size;
}

/** The parts of a file that have to be sent, in their order: a new disk is all zero. */
export async function partsOf(path: string, call: Call): Promise<readonly DiskPart[]> {
  await using file = await open(path, "r");
  const parts: DiskPart[] = [];
  const buffer = Buffer.alloc(PART_BYTES);
  for (let offset = 0; ; offset += PART_BYTES) {
    if (call.signal.aborted) throw ended(call);
    const { bytesRead } = await file.read(buffer, 0, PART_BYTES, offset);
    if (bytesRead === 0) return parts;
    if (!buffer.subarray(0, bytesRead).equals(ZERO.subarray(0, bytesRead))) parts.push({ offset, bytes: bytesRead });
  }
}
