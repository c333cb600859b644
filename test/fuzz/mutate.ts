import type { Random } from "./random.ts";
import { type Frame, field, frameBytes, varint } from "./wire.ts";

const MIB = 1 << 20;
const EDGES = [0, 1, 2, 3, 9, 10, 0x7f, 0x80, 0xff, 0xffff, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 0x7fffffff, 0xffffffff];
const ENDLESS_VARINT = Buffer.alloc(11, 0xff);

type BytesMutation = (bytes: Buffer, r: Random) => Buffer;

function cutOut(bytes: Buffer, at: number, length: number, put: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + length)]);
}

/** Where a protobuf message has its fields: each a tag, and what follows it. */
function tags(bytes: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    found.push(at);
    const tag = bytes[at] ?? 0;
    at += 1;
    if ((tag & 7) === 2) at += 1 + (bytes[at] ?? 0);
    else if ((tag & 7) === 0) while ((bytes[at++] ?? 0) > 0x7f && at < bytes.length);
    else if ((tag & 7) === 1) at += 8;
    else if ((tag & 7) === 5) at += 4;
    else break;
  }
  return found;
}

function nested(depth: number, number: number): Buffer {
  let inner: Buffer = Buffer.alloc(0);
  for (let i = 0; i < depth; i += 1) inner = field(number, inner);
  return inner;
}

/** What is done to the bytes of a message, whoever wrote it. */
const BYTES: readonly BytesMutation[] = [
  (b, r) => {
    const copy = Buffer.from(b);
    for (let n = 1 + r.below(4); n > 0 && copy.length > 0; n -= 1) {
      const at = r.below(copy.length);
      copy[at] = (copy[at] ?? 0) ^ (1 << r.below(8));
    }
    return copy;
  },
  (b, r) => b.subarray(0, r.below(b.length + 1)),
  (b, r) => cutOut(b, r.below(b.length + 1), r.below(8), r.bytes(r.below(16))),
  (b, r) => cutOut(b, r.below(b.length + 1), 0, ENDLESS_VARINT),
  (b, r) => {
    const from = r.below(b.length + 1);
    return cutOut(b, from, 0, b.subarray(from, from + r.below(64)));
  },
  // A tag with another wire type or number, a field said twice, a length that lies.
  (b, r) => cutOut(b, r.pick([0, ...tags(b)]), 1, Buffer.of(r.below(256))),
  (b, r) => {
    const at = r.pick([0, ...tags(b)]);
    return Buffer.concat([b, b.subarray(at)]);
  },
  (b, r) => cutOut(b, r.pick([0, ...tags(b)]) + 1, 1, varint(r.pick(EDGES))),
  (b, r) => Buffer.concat([b, nested(r.below(300), 1 + r.below(12))]),
  (b, r) => Buffer.concat([b, field(1 + r.below(20), r.bytes(r.below(200)))]),
  (b, r) => Buffer.concat([b, varint((1 + r.below(20)) * 8), ENDLESS_VARINT.subarray(0, r.below(12)), Buffer.of(1)]),
  (_b, r) => r.bytes(r.below(300)),
  () => Buffer.alloc(0),
];

/** One to three changes to the bytes of a message. */
export function mutateBytes(bytes: Buffer, r: Random): Buffer {
  let changed = bytes;
  for (let n = 1 + r.below(3); n > 0; n -= 1) changed = r.pick(BYTES)(changed, r);
  return changed;
}

/** Bytes of a frame that is wrong in one to three places, or now and then in none. */
export function mutateFrame(frame: Frame, r: Random): Buffer {
  const f = { ...frame };
  for (let n = r.below(4); n > 0; n -= 1) {
    const what = r.below(16);
    if (what < 8) {
      f.body = mutateBytes(f.body, r);
      f.length = f.body.length;
    } else if (what < 10) f.streamId = r.pick([...EDGES, r.u32(), f.streamId - 2, f.streamId + 1]) >>> 0;
    else if (what === 10) f.type = r.pick([0, 2, 3, 4, 0xff, r.below(256)]);
    else if (what === 11) f.flags = r.pick([1, 2, 4, 7, 0xff, r.below(256)]);
    else if (what === 12) f.length = r.pick([...EDGES, f.body.length + 1, Math.max(0, f.body.length - 1), r.u32()]);
    else if (what === 13)
      f.body = Buffer.concat([f.body, field(5, Buffer.concat([field(1, r.bytes(8)), field(2, r.bytes(8))]))]);
    else if (what === 14)
      f.body = Buffer.concat([f.body, varint(4 * 8), r.pick([varint(1), varint(r.u32()), ENDLESS_VARINT])]);
    else return mutateBytes(frameBytes(f), r);
    // The header tells the truth most of the time: else nothing behind it would be looked at.
    if (what >= 13) f.length = f.body.length;
  }
  return frameBytes(f);
}
