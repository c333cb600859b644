import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FrameParser, MAX_BODY_BYTES } from "./frame.ts";
import { frameBytes, unhex } from "./test-peer.ts";

interface Seen {
  readonly frames: (readonly [type: number, streamId: number, hex: string])[];
  readonly oversize: (readonly [type: number, streamId: number, bytes: number])[];
  readonly parser: FrameParser;
}

function parse(onFrame: (parser: FrameParser) => void = () => undefined): Seen {
  const frames: Seen["frames"] = [];
  const oversize: Seen["oversize"] = [];
  const parser: FrameParser = new FrameParser({
    onFrame: (type, streamId, body) => {
      frames.push([type, streamId, body.toString("hex")]);
      onFrame(parser);
    },
    onOversize: (type, streamId, bytes) => oversize.push([type, streamId, bytes]),
  });
  return { frames, oversize, parser };
}

describe("FrameParser", () => {
  it("reads header fields as big endian", () => {
    const { frames, parser } = parse();
    parser.push(unhex("00000003 fffffffd 02 00 aabbcc"));
    assert.deepEqual(frames, [[2, 0xfffffffd, "aabbcc"]]);
  });

  it("joins a frame that comes byte by byte", () => {
    const { frames, parser } = parse();
    for (const byte of unhex("00000002 00000001 01 00 cafe 00000000 00000003 01 00")) parser.push(Buffer.of(byte));
    assert.deepEqual(frames, [
      [1, 1, "cafe"],
      [1, 3, ""],
    ]);
  });

  it("gives the same frames however the bytes are split", () => {
    const frame = fc.record({ type: fc.nat(255), id: fc.nat(0xffffffff), body: fc.uint8Array({ maxLength: 300 }) });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), fc.array(fc.integer({ min: 1, max: 400 })), (sent, cuts) => {
        const bytes = Buffer.concat(sent.map(({ type, id, body }) => frameBytes(type, id, body)));
        const { frames, parser } = parse();
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          parser.push(bytes.subarray(at, at + cut));
          at += cut;
        }
        assert.deepEqual(
          frames,
          sent.map(({ type, id, body }) => [type, id, Buffer.from(body).toString("hex")]),
        );
      }),
    );
  });

  it("takes a body of exactly the limit, in pieces, and drops one that is a byte longer", () => {
    const { frames, oversize, parser } = parse();
    parser.push(frameBytes(1, 1, Buffer.alloc(MAX_BODY_BYTES)));
    parser.push(frameBytes(1, 3, Buffer.alloc(MAX_BODY_BYTES)).subarray(0, 100));
    parser.push(Buffer.alloc(MAX_BODY_BYTES - 90));
    const tooLong = frameBytes(1, 5, Buffer.alloc(MAX_BODY_BYTES + 1));
    parser.push(tooLong.subarray(0, 1000));
    assert.deepEqual(oversize, []);
    parser.push(Buffer.concat([tooLong.subarray(1000), unhex("00000001 00000007 01 00 ee")]));
    assert.deepEqual(oversize, [[1, 5, MAX_BODY_BYTES + 1]]);
    assert.deepEqual(
      frames.map(([, id, hex]) => [id, hex.length / 2]),
      [
        [1, MAX_BODY_BYTES],
        [3, MAX_BODY_BYTES],
        [7, 1],
      ],
    );
  });

  it("refuses what can only be another protocol", () => {
    const { parser } = parse();
    assert.throws(() => parser.push(Buffer.from("GET / HTTP/1.1\r\n")), /not a ttrpc frame/);
  });

  it("hands out nothing while paused, and then everything in order", () => {
    const one = "00000001 00000001 01 00 01";
    const { frames, parser } = parse((p) => p.pause());
    parser.push(unhex(`${one} 00000001 00000003 01 00 02 0000`));
    parser.push(unhex("0001 00000005 01 00 03"));
    assert.deepEqual(frames.length, 1);
    parser.resume();
    assert.deepEqual(frames.length, 2);
    parser.resume();
    assert.deepEqual(
      frames.map(([, id]) => id),
      [1, 3, 5],
    );
    assert.equal(parser.paused, true);
  });

  it("does not need quadratic time for a large body in small chunks", () => {
    const { frames, parser } = parse();
    const bytes = frameBytes(1, 1, Buffer.alloc(MAX_BODY_BYTES, 1));
    const start = performance.now();
    for (let at = 0; at < bytes.length; at += 64) parser.push(bytes.subarray(at, at + 64));
    assert.equal(frames.length, 1);
    // 65,536 chunks; joining the body anew for each of them would move 137 GB.
    assert.ok(performance.now() - start < 3000);
  });
});
