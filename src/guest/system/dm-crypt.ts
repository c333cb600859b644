import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { addressOf, libc } from "./libc.ts";

/** Source: linux/dm-ioctl.h, interface 4: struct dm_ioctl is 312 bytes, requests are _IOWR(0xfd, n, struct dm_ioctl). */
const HEADER = 312;
const VERSION = 4;
const REQUEST = 0xc138fd00;
const CREATE = REQUEST + 3;
const RESUME = REQUEST + 6;
const LOAD_TABLE = REQUEST + 9;
/** The kernel wipes its copies of the request. */
const SECURE_DATA = 1 << 15;
const NAME_AT = 48;
const DEVICE_AT = 40;
/** struct dm_target_spec, before its parameters. */
const TARGET = 40;
const CIPHER = "aes-xts-plain64";
const KEY_BYTES = 64;

/**
 * Puts an encrypting device before a disk, with a key that exists in this kernel only: what is written is lost with the
 * machine, for whoever has the disk too. The kernel's module dm_crypt must be loaded.
 * @returns path of the new device
 * @throws Error with the errno's code
 */
export function encryptWithLostKey(path: string, bytes: number, name: string): string {
  const control = openSync("/dev/mapper/control", "r+");
  const key = randomBytes(KEY_BYTES);
  const table = tableOf(name, bytes, `${CIPHER} ${key.toString("hex")} 0 ${path} 0`);
  try {
    const created = request(name);
    ioctl(control, CREATE, created);
    ioctl(control, LOAD_TABLE, table);
    ioctl(control, RESUME, request(name));
    return `/dev/dm-${minorOf(created.readBigUInt64LE(DEVICE_AT))}`;
  } finally {
    key.fill(0);
    table.fill(0);
    closeSync(control);
  }
}

function request(name: string, length = HEADER): Buffer {
  const buffer = Buffer.alloc(length);
  buffer.writeUInt32LE(VERSION, 0);
  buffer.writeUInt32LE(length, 12);
  buffer.writeUInt32LE(HEADER, 16);
  buffer.write(name, NAME_AT, 127, "latin1");
  return buffer;
}

function tableOf(name: string, bytes: number, parameters: string): Buffer {
  const target = Math.ceil((TARGET + parameters.length + 1) / 8) * 8;
  const buffer = request(name, HEADER + target);
  buffer.writeUInt32LE(1, 20); // targets
  buffer.writeUInt32LE(SECURE_DATA, 28);
  buffer.writeBigUInt64LE(BigInt(Math.floor(bytes / 512)), HEADER + 8);
  buffer.writeUInt32LE(target, HEADER + 20);
  buffer.write("crypt", HEADER + 24, "latin1");
  buffer.write(parameters, HEADER + TARGET, "latin1");
  return buffer;
}

/** As the kernel's huge_encode_dev packs it. */
function minorOf(device: bigint): number {
  return Number((device & 0xffn) | ((device >> 12n) & 0xfff00n));
}

function ioctl(fd: number, number: number, buffer: Buffer): void {
  libc("int ioctl(int fd, unsigned long request, ...)", fd, number, "void *", addressOf(buffer));
}
