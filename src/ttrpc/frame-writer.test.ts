import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { describe, it } from "node:test";
import fc from "fast-check";
import { decodeResponse } from "./envelope.ts";
import { FrameParser } from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";

describe("FrameWriter", () => {
  it("keeps the frames of connections apart that are written in the same tick", async () => {
    const sizes = fc.oneof(fc.nat(50), fc.nat(8192), fc.integer({ min: 8193, max: 90_000 }));
    const step = fc.record({ connection: fc.nat(2), size: sizes, flush: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const ends = [0, 1, 2].map(() => duplexPair({ highWaterMark: 16 << 20 }));
        const writers = ends.map(([stream]) => new FrameWriter(stream));
        const sent: string[][] = [[], [], []];
        for (const [i, { connection, size, flush }] of steps.entries()) {
          const payload = Buffer.alloc(size, i + 1);
          writers[connection]!.response(i * 2 + 1, payload);
          sent[connection]!.push(`${i * 2 + 1} ${size} ${size === 0 ? "" : i + 1}`);
          if (flush) writers[connection]!.flush();
        }
        await new Promise(setImmediate);
        for (const [c, [stream, other]] of ends.entries()) {
          stream.end();
          assert.deepEqual(frames(Buffer.concat(await other.toArray())), sent[c]);
        }
      }),
      { numRuns: 150 },
    );
  });

  it("gives the stream one write for many small frames", async () => {
    const [stream, other] = duplexPair();
    const writer = new FrameWriter(stream);
    for (let id = 1; id < 100; id += 2) writer.response(id, Buffer.of(id));
    assert.equal(stream.writableLength, 0);
    assert.equal(writer.pendingBytes, 50 * 13);
    const chunks: number[] = [];
    other.on("data", (chunk: Buffer) => chunks.push(chunk.length));
    await new Promise(setImmediate);
    // Two: a slab may end in between.
    assert.ok(chunks.length <= 2, `${chunks.length} writes`);
    assert.equal(writer.pendingBytes, 0);
  });

  it("writes nothing to a stream that has ended", async () => {
    const [stream] = duplexPair();
    const failures: Error[] = [];
    stream.on("error", (error) => failures.push(error));
    const writer = new FrameWriter(stream);
    writer.response(1, Buffer.of(1));
    stream.end();
    writer.response(3, Buffer.of(1));
    await new Promise(setImmediate);
    assert.deepEqual(failures, []);
  });
});

/** "id length fill", where every byte of the payload has the value of the first. */
function frames(bytes: Buffer): string[] {
  const found: string[] = [];
  new FrameParser({
    onFrame: (_type, streamId, body) => {
      const { payload } = decodeResponse(body);
      assert.ok(payload.equals(Buffer.alloc(payload.length, payload[0])));
      found.push(`${streamId} ${payload.length} ${payload[0] ?? ""}`);
    },
    onOversize: () => assert.fail("oversize"),
  }).push(bytes);
  return found;
}
