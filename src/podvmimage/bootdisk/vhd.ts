import { guidBytes, guidFrom } from "./guid.ts";

export const VHD_FOOTER_BYTES = 512;
/** Azure takes disks of whole MiB only. */
export const VHD_ALIGNMENT_BYTES = 1 << 20;

const COOKIE = "conectix";
const FEATURES_RESERVED = 2;
const VERSION = 0x10000;
const FIXED = 2;
/** Seconds from 1970 to the format's own beginning, 2000-01-01. */
const EPOCH_2000 = 946_684_800;
const SECTOR = 512;

/**
 * Footer that makes a raw disk a VHD of fixed size. All numbers are big endian.
 * @param sizeBytes of the disk, whole MiB
 * @param dateSeconds of the disk's making, since 1970
 * @param identity the same for the same disk
 * Source: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0.
 */
export function vhdFooter(sizeBytes: number, dateSeconds: number, identity: string): Buffer {
  if (sizeBytes % VHD_ALIGNMENT_BYTES !== 0) throw new RangeError(`a VHD of ${sizeBytes} bytes is not of whole MiB`);
  const footer = Buffer.alloc(VHD_FOOTER_BYTES);
  footer.write(COOKIE, 0, "latin1");
  footer.writeUInt32BE(FEATURES_RESERVED, 8);
  footer.writeUInt32BE(VERSION, 12);
  footer.writeBigUInt64BE(0xffff_ffff_ffff_ffffn, 16); // no dynamic header
  footer.writeUInt32BE(dateSeconds - EPOCH_2000, 24);
  footer.write("qem2", 28, "latin1"); // QEMU takes the size from the field for it, and not from the rounded geometry, for some creators
  footer.writeUInt32BE(VERSION, 32);
  footer.write("Wi2k", 36, "latin1"); // creator host system: one of the two that there are
  footer.writeBigUInt64BE(BigInt(sizeBytes), 40);
  footer.writeBigUInt64BE(BigInt(sizeBytes), 48);
  const { cylinders, heads, sectors } = geometry(Math.floor(sizeBytes / SECTOR));
  footer.writeUInt16BE(cylinders, 56);
  footer.writeUInt8(heads, 58);
  footer.writeUInt8(sectors, 59);
  footer.writeUInt32BE(FIXED, 60);
  guidBytes(guidFrom("vhd", identity)).copy(footer, 68);
  let sum = 0;
  for (const byte of footer) sum += byte;
  footer.writeUInt32BE(~sum >>> 0, 64);
  return footer;
}

/** The specification's appendix, "CHS Calculation". */
function geometry(total: number): { readonly cylinders: number; readonly heads: number; readonly sectors: number } {
  const capped = Math.min(total, 65_535 * 16 * 255);
  let [sectors, heads, tracks] = [255, 16, Math.floor(capped / 255)];
  if (capped < 65_535 * 16 * 63) {
    sectors = 17;
    tracks = Math.floor(capped / sectors);
    heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
    if (tracks >= heads * 1024 || heads > 16) {
      [sectors, heads] = [31, 16];
      tracks = Math.floor(capped / sectors);
    }
    if (tracks >= heads * 1024) {
      [sectors, heads] = [63, 16];
      tracks = Math.floor(capped / sectors);
    }
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}
