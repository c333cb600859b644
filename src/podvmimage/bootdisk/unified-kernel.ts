import { Fault } from "../../base/fault.ts";

/** A section to add to a PE file. */
export interface PeSection {
  /** At most 8 characters. */
  readonly name: string;
  readonly data: Uint8Array;
}

const SECTION_HEADER_BYTES = 40;
/** Initialized data that can be read. */
const CHARACTERISTICS = 0x4000_0040;
/** Offsets from the PE signature. Source: Microsoft, "PE Format". */
const PE = { sections: 6, symbols: 12, symbolCount: 16, optionalSize: 20, optional: 24 } as const;
/** Offsets from the optional header's start. */
const OPTIONAL = {
  initializedData: 8,
  sectionAlignment: 32,
  fileAlignment: 36,
  imageSize: 56,
  headersSize: 60,
  checksum: 64,
} as const;
const PE32_PLUS = 0x20b;

type Numbers = [number, number, number, number];

/**
 * A unified kernel image: systemd's EFI stub with what it boots in sections of its own. Firmware starts it like any EFI
 * program; it measures the sections into the TPM, where there is one, and starts the kernel.
 * Source: UAPI.5 "Unified Kernel Image"; systemd-stub(7).
 */
export function unifiedKernel(
  stub: Uint8Array,
  parts: {
    readonly kernel: Uint8Array;
    readonly initrd: Uint8Array;
    readonly cmdline: string;
    readonly osRelease: string;
    readonly kernelVersion: string;
  },
): Buffer {
  return addSections(stub, [
    { name: ".osrel", data: Buffer.from(parts.osRelease) },
    { name: ".cmdline", data: Buffer.from(parts.cmdline) },
    { name: ".uname", data: Buffer.from(parts.kernelVersion) },
    { name: ".initrd", data: parts.initrd },
    { name: ".linux", data: parts.kernel },
  ]);
}

/**
 * A copy of a PE32+ file with more sections, behind those that it has in memory as in the file. Symbols for debuggers,
 * which stand behind a file's sections, are left out.
 * @throws Fault invalid_argument when it is not such a file, or has no room for the sections' headers
 */
export function addSections(pe: Uint8Array, sections: readonly PeSection[]): Buffer {
  const whole = Buffer.from(pe);
  const signature = whole.length > 64 ? whole.readUInt32LE(60) : 0;
  const optional = signature + PE.optional;
  if (whole.toString("latin1", signature, signature + 4) !== "PE\0\0" || whole.readUInt16LE(optional) !== PE32_PLUS) {
    throw new Fault("invalid_argument", "the EFI stub is not a PE32+ file");
  }
  const field = (offset: number): number => whole.readUInt32LE(optional + offset);
  const align = (value: number, to: number): number => Math.ceil(value / to) * to;
  const count = whole.readUInt16LE(signature + PE.sections);
  const table = optional + whole.readUInt16LE(signature + PE.optionalSize);
  const end = table + (count + sections.length) * SECTION_HEADER_BYTES;
  if (end > field(OPTIONAL.headersSize)) {
    throw new Fault("invalid_argument", `the EFI stub has no room for ${sections.length} more sections`);
  }

  let address = 0;
  let used = field(OPTIONAL.headersSize);
  for (let i = 0; i < count; i += 1) {
    const at = table + i * SECTION_HEADER_BYTES;
    const [size, start, rawSize, rawStart] = [8, 12, 16, 20].map((f) => whole.readUInt32LE(at + f)) as Numbers;
    address = Math.max(address, start + size);
    used = Math.max(used, rawStart + rawSize);
  }
  const file = whole.subarray(0, used);
  file.writeUInt32LE(0, signature + PE.symbols);
  file.writeUInt32LE(0, signature + PE.symbolCount);
  let offset = align(file.length, field(OPTIONAL.fileAlignment));
  const parts: Buffer[] = [file, Buffer.alloc(offset - file.length)];
  let added = 0;
  sections.forEach(({ name, data }, index) => {
    address = align(address, field(OPTIONAL.sectionAlignment));
    const size = align(data.length, field(OPTIONAL.fileAlignment));
    const header = file.subarray(table + (count + index) * SECTION_HEADER_BYTES).subarray(0, SECTION_HEADER_BYTES);
    header.fill(0);
    header.write(name, 0, "latin1");
    header.writeUInt32LE(data.length, 8);
    header.writeUInt32LE(address, 12);
    header.writeUInt32LE(size, 16);
    header.writeUInt32LE(offset, 20);
    header.writeUInt32LE(CHARACTERISTICS, 36);
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength), Buffer.alloc(size - data.length));
    address += data.length;
    offset += size;
    added += size;
  });
  file.writeUInt16LE(count + sections.length, signature + PE.sections);
  file.writeUInt32LE(field(OPTIONAL.initializedData) + added, optional + OPTIONAL.initializedData);
  file.writeUInt32LE(align(address, field(OPTIONAL.sectionAlignment)), optional + OPTIONAL.imageSize);
  file.writeUInt32LE(0, optional + OPTIONAL.checksum); // EFI firmware does not look at it; signing programs set it
  return Buffer.concat(parts);
}
