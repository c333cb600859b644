/** The few protobuf primitives that the ttrpc envelope needs. Source: protobuf.dev "Encoding". */

/** Bytes that are not a valid protobuf message. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
}

const WireType = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;
const MAX_GROUP_DEPTH = 100;
const TWO_32 = 2 ** 32;
const NO_BYTES: Buffer = Buffer.alloc(0);

/** Length of an unsigned varint below 2^32, bytes. */
export function varintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
}

/** Writes an unsigned varint below 2^32 at `at`, returns the position after it. */
export function writeVarint(target: Uint8Array, at: number, value: number): number {
  let rest = value;
  let to = at;
  while (rest >= 0x80) {
    target[to++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[to++] = rest;
  return to;
}

/** Length of an unsigned varint up to 2^63, bytes. */
export function uint64Bytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++;
  return bytes;
}

/** Writes a whole number from 0 up to 2^63 (a double, so beyond 2^53 not every one exists), returns the position after it. */
export function writeUint64(target: Uint8Array, at: number, value: number): number {
  let rest = value;
  let to = at;
  while (rest >= 0x80) {
    target[to++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  target[to++] = rest;
  return to;
}

/** An int32 as protobuf writes it: a negative one is sign-extended to 64 bits. */
export function int32Varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value | 0;
  if (rest >= 0) {
    for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
    bytes.push(rest);
  } else {
    for (let i = 0; i < 9; i++, rest >>= 7) bytes.push((rest & 0x7f) | 0x80);
    bytes.push(1);
  }
  return Buffer.from(bytes);
}

/** A length-delimited field (string, bytes, message) with its tag; the field number is below 16. */
export function delimited(field: number, value: string | Uint8Array): Buffer {
  const length = typeof value === "string" ? Buffer.byteLength(value) : value.length;
  const headBytes = 1 + varintBytes(length);
  const target = Buffer.allocUnsafe(headBytes + length);
  target[0] = (field << 3) | WireType.bytes;
  writeVarint(target, 1, length);
  if (typeof value === "string") target.write(value, headBytes, "utf8");
  else target.set(value, headBytes);
  return target;
}

/** The same, but nothing when the value is empty: a singular field of proto3 at its default is not written. */
export function delimitedUnlessEmpty(field: number, value: string | Uint8Array): Buffer {
  return value.length === 0 ? NO_BYTES : delimited(field, value);
}

/** Reads the fields of one message. Every function throws MalformedMessage rather than pass the end. */
export class WireReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  #at: number;

  constructor(bytes: Buffer, from = 0, to: number = bytes.length) {
    this.#bytes = bytes;
    this.#at = from;
    this.#end = to;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** Where the next field starts. */
  get position(): number {
    return this.#at;
  }

  /** Field number and wire type: `field << 3 | type`. */
  tag(): number {
    const tag = this.uint32();
    if (tag >>> 3 === 0) throw new MalformedMessage("a field has number 0");
    return tag;
  }

  /** The low 32 bits of a varint. */
  uint32(): number {
    const first = this.#byte();
    if (first < 0x80) return first;
    let value = first & 0x7f;
    for (let shift = 7; shift < 70; shift += 7) {
      const byte = this.#byte();
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new MalformedMessage("a varint is longer than 10 bytes");
  }

  /** A signed 64-bit varint as a number; beyond ±2^53 it is rounded. */
  int64(): number {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte();
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else if (shift < 64) high |= bits << (shift - 32);
      if (byte < 0x80) return (high | 0) * TWO_32 + (low >>> 0);
    }
    throw new MalformedMessage("a varint is longer than 10 bytes");
  }

  string(): string {
    const length = this.#length();
    const from = this.#at;
    this.#at += length;
    return this.#bytes.toString("utf8", from, this.#at);
  }

  /** A view, not a copy. */
  bytes(): Buffer {
    const length = this.#length();
    const from = this.#at;
    this.#at += length;
    return this.#bytes.subarray(from, this.#at);
  }

  /** A reader of the embedded message that comes next. */
  message(): WireReader {
    const length = this.#length();
    const from = this.#at;
    this.#at += length;
    return new WireReader(this.#bytes, from, this.#at);
  }

  /** Passes over the value of a field that is not known here. */
  skip(tag: number, depth = 0): void {
    switch (tag & 7) {
      case WireType.varint:
        this.int64();
        return;
      case WireType.fixed64:
        this.#advance(8);
        return;
      case WireType.bytes:
        this.#advance(this.#length());
        return;
      case WireType.fixed32:
        this.#advance(4);
        return;
      case WireType.startGroup:
        this.#skipGroup(tag >>> 3, depth);
        return;
      default:
        throw new MalformedMessage(`wire type ${tag & 7} where a value was expected`);
    }
  }

  #skipGroup(field: number, depth: number): void {
    if (depth >= MAX_GROUP_DEPTH) throw new MalformedMessage("groups are nested too deep");
    for (;;) {
      const tag = this.tag();
      if ((tag & 7) !== WireType.endGroup) this.skip(tag, depth + 1);
      else if (tag >>> 3 === field) return;
      else throw new MalformedMessage("a group ends that did not start");
    }
  }

  #byte(): number {
    if (this.#at >= this.#end) throw new MalformedMessage("the message ends within a field");
    return this.#bytes[this.#at++] as number;
  }

  #length(): number {
    const length = this.uint32();
    if (length > this.#end - this.#at) throw new MalformedMessage("the message ends within a field");
    return length;
  }

  #advance(count: number): void {
    if (count > this.#end - this.#at) throw new MalformedMessage("the message ends within a field");
    this.#at += count;
  }
}
