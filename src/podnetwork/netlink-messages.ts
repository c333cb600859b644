/** Source: include/uapi/linux/netlink.h: struct nlmsghdr, struct nlattr; everything is aligned to four bytes. */
const HEADER_BYTES = 16;
const ATTRIBUTE_BYTES = 4;
/** NLA_F_NESTED and NLA_F_NET_BYTEORDER share the type's word. */
const TYPE_MASK = 0x3fff;

/** What follows an attribute's header. */
export type AttributeValue = Buffer | readonly Attribute[];
export type Attribute = readonly [type: number, value: AttributeValue];

export interface NetlinkMessage {
  readonly type: number;
  readonly body: Buffer;
}

const aligned = (length: number): number => (length + 3) & ~3;

export function u8(value: number): Buffer {
  return Buffer.from([value]);
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** Zero-terminated. */
export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(
    attributes.map(([type, value]) => {
      const payload = Buffer.isBuffer(value) ? value : encodeAttributes(value as readonly Attribute[]);
      const bytes = Buffer.alloc(aligned(ATTRIBUTE_BYTES + payload.length));
      bytes.writeUInt16LE(ATTRIBUTE_BYTES + payload.length, 0);
      bytes.writeUInt16LE(type, 2);
      payload.copy(bytes, ATTRIBUTE_BYTES);
      return bytes;
    }),
  );
}

/** The last of each type. */
export function readAttributes(bytes: Buffer): ReadonlyMap<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + ATTRIBUTE_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < ATTRIBUTE_BYTES || at + length > bytes.length) break;
    found.set(bytes.readUInt16LE(at + 2) & TYPE_MASK, bytes.subarray(at + ATTRIBUTE_BYTES, at + length));
    at += aligned(length);
  }
  return found;
}

export function encodeMessage(type: number, flags: number, sequence: number, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(HEADER_BYTES + body.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, body]);
}

/** The messages of one datagram that answer a request. */
export function readMessages(datagram: Buffer, sequence: number): readonly NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > datagram.length) break;
    if (datagram.readUInt32LE(at + 8) === sequence)
      messages.push({
        type: datagram.readUInt16LE(at + 4),
        body: datagram.subarray(at + HEADER_BYTES, at + length),
      });
    at += aligned(length);
  }
  return messages;
}
