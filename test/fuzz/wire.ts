/** Bytes of ttrpc and protobuf, written here a second time: what mutates must not depend on what is being tested. */

export interface Frame {
  streamId: number;
  type: number;
  flags: number;
  body: Buffer;
  /** What the header says; the body's own length unless it lies. */
  length: number;
}

export const REQUEST = 1;
export const HEADER = 10;

/** A request of a unary call. */
export function requestFrame(streamId: number, service: string, method: string, payload: Uint8Array): Frame {
  const body = Buffer.concat([field(1, Buffer.from(service)), field(2, Buffer.from(method)), field(3, payload)]);
  return { streamId, type: REQUEST, flags: 0, body, length: body.length };
}

export function frameBytes({ streamId, type, flags, body, length }: Frame): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER + body.length);
  bytes.writeUInt32BE(length >>> 0, 0);
  bytes.writeUInt32BE(streamId >>> 0, 4);
  bytes[8] = type;
  bytes[9] = flags;
  body.copy(bytes, HEADER);
  return bytes;
}

/** A length-delimited field. */
export function field(number: number, value: Uint8Array): Buffer {
  return Buffer.concat([varint(number * 8 + 2), varint(value.length), value]);
}

export function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}
