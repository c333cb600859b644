/** The few DER (X.690) forms that a certificate request is made of. Values are whole TLVs. */

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return tlv(0x30, Buffer.concat(parts));
}

export function set(...parts: readonly Uint8Array[]): Buffer {
  return tlv(0x31, Buffer.concat(parts));
}

/** A non-negative integer of any length, big-endian. */
export function integer(value: Uint8Array): Buffer {
  const first = value.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? Buffer.of(0) : Buffer.from(value.subarray(first));
  return tlv(0x02, (digits[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), digits]) : digits);
}

export function objectIdentifier(dotted: string): Buffer {
  const [a = 0, b = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [a * 40 + b];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let n = Math.floor(arc / 128); n > 0; n = Math.floor(n / 128)) groups.unshift((n & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return tlv(0x06, Buffer.from(bytes));
}

export function utf8String(text: string): Buffer {
  return tlv(0x0c, Buffer.from(text, "utf8"));
}

/** `YYMMDDHHMMSSZ`: for years up to 2049. */
export function utcTime(text: string): Buffer {
  return tlv(0x17, Buffer.from(text, "ascii"));
}

/** `YYYYMMDDHHMMSSZ` */
export function generalizedTime(text: string): Buffer {
  return tlv(0x18, Buffer.from(text, "ascii"));
}

/** Whole bytes only. */
export function bitString(value: Uint8Array): Buffer {
  return tlv(0x03, Buffer.concat([Buffer.of(0), value]));
}

export function octetString(value: Uint8Array): Buffer {
  return tlv(0x04, value);
}

export function booleanTrue(): Buffer {
  return tlv(0x01, Buffer.of(0xff));
}

/** Named bits, the first one being the highest of `byte`; the last `unused` ones are left out. */
export function namedBits(byte: number, unused: number): Buffer {
  return tlv(0x03, Buffer.of(unused, byte));
}

/** Context-specific, primitive (implicit tagging). */
export function taggedBytes(tag: number, content: Uint8Array): Buffer {
  return tlv(0x80 | tag, content);
}

/** Context-specific, constructed. */
export function tagged(tag: number, content: Uint8Array = Buffer.alloc(0)): Buffer {
  return tlv(0xa0 | tag, content);
}

function tlv(tag: number, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(tag), lengthOf(value.length), value]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length);
  const bytes: number[] = [];
  for (let n = length; n > 0; n = Math.floor(n / 256)) bytes.unshift(n & 0xff);
  return Buffer.of(0x80 | bytes.length, ...bytes);
}

/** One TLV of a buffer: `whole` includes tag and length. */
export interface Element {
  readonly tag: number;
  readonly value: Buffer;
  readonly whole: Buffer;
}

/**
 * The TLVs directly inside of a constructed value.
 * @throws RangeError on anything that isn't DER with definite lengths below 4 GiB
 */
export function elements(content: Buffer): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < content.length; ) {
    const tag = content.readUInt8(at);
    const first = content.readUInt8(at + 1);
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    if (first === 0x80 || lengthBytes > 4) throw new RangeError(`DER length byte ${first} is not supported`);
    const length = lengthBytes === 0 ? first : content.readUIntBE(at + 2, lengthBytes);
    const start = at + 2 + lengthBytes;
    if (start + length > content.length) throw new RangeError("DER value is cut off");
    found.push({ tag, value: content.subarray(start, start + length), whole: content.subarray(at, start + length) });
    at = start + length;
  }
  return found;
}
