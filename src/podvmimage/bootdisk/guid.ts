import { createHash } from "node:crypto";

/** 128 bits as GPT and firmware write them: 8-4-4-4-12 hexadecimal digits in upper case. */
export type Guid = string;

/** A GUID that follows from names: the same for the same ones. Version 8 of RFC 9562, whose bits are free. */
export function guidFrom(...names: readonly string[]): Guid {
  const bytes = createHash("sha256").update(names.join("\0")).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString("hex").toUpperCase();
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** As it stands on a disk: the first three parts are little endian. Source: UEFI specification, appendix A. */
export function guidBytes(guid: Guid): Buffer {
  const bytes = Buffer.from(guid.replaceAll("-", ""), "hex");
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}
