/**
 * A kernel of some 100 bytes for tests of the QEMU driver: it writes a text to the first serial port and then does one
 * of a few things. QEMU boots it with -kernel like Linux, in a few milliseconds of guest time.
 * Source of the format: Multiboot Specification 0.6.96, 3.1 "OS image format" (header with address fields).
 */
export function tinyKernel(text: string, then: "halt" | "reset" | "repeat"): Buffer {
  const code = Buffer.concat([
    Buffer.from([0xbe, ...u32(MESSAGE)]), // mov esi, MESSAGE
    Buffer.from([0xac]), //                  next: lodsb
    Buffer.from([0x84, 0xc0]), //            test al, al
    Buffer.from([0x74, 0x07]), //            jz end
    Buffer.from([0x66, 0xba, 0xf8, 0x03]), // mov dx, 0x3f8
    Buffer.from([0xee]), //                  out dx, al
    Buffer.from([0xeb, 0xf4]), //            jmp next
    Buffer.from(ENDINGS[then]), //           end:
  ]);
  const message = Buffer.from(`${text}\0`, "latin1");
  const image = Buffer.alloc(MESSAGE - LOAD + message.length);
  const end = LOAD + image.length;
  const fields = [MAGIC, HAS_ADDRESSES, -(MAGIC + HAS_ADDRESSES) >>> 0, LOAD, LOAD, end, end, LOAD + HEADER_BYTES];
  for (const [i, field] of fields.entries()) image.writeUInt32LE(field, i * 4);
  code.copy(image, HEADER_BYTES);
  message.copy(image, MESSAGE - LOAD);
  return image;
}

const MAGIC = 0x1badb002;
const HAS_ADDRESSES = 0x10000;
const HEADER_BYTES = 32;
const LOAD = 0x100000;
const MESSAGE = LOAD + 128;

const ENDINGS = {
  halt: [0xfa, 0xf4, 0xeb, 0xfd], // cli; hlt; jmp back to hlt
  reset: [0x0f, 0x01, 0x1d, ...u32(LOAD + 120), 0xcc], // lidt of zeros; int3: a triple fault resets the machine
  repeat: [0xeb, 0xe9], // jmp to the first instruction
} as const;

function u32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}
