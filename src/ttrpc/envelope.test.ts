import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Request, Response } from "../gen/ttrpc/ttrpc.ts";
import { decodeRequest, decodeResponse, encodeMetadata, encodeTarget, timeoutNano } from "./envelope.ts";
import { FrameWriter } from "./frame-writer.ts";
import { StatusError } from "./status.ts";
import { unhex } from "./test-peer.ts";
import type { Metadata } from "./types.ts";

/** What a FrameWriter gives its stream, all writes of the tick together. */
async function written(write: (writer: FrameWriter) => void): Promise<Buffer> {
  const [stream, other] = duplexPair({ highWaterMark: 16 << 20 });
  write(new FrameWriter(stream));
  await new Promise(setImmediate);
  stream.end();
  return Buffer.concat(await other.toArray());
}

function request(
  service: string,
  method: string,
  payload: Uint8Array,
  timeout = 0,
  metadata: Metadata = [],
): Promise<Buffer> {
  return written((w) => w.request(1, encodeTarget(service, method), payload, timeout, encodeMetadata(metadata)));
}

const HEALTH_CHECK = "0a0b 677270632e4865616c7468 1205 436865636b"; // grpc.Health, Check

describe("golden bytes", () => {
  it("of a request", async () => {
    const bytes = await request("grpc.Health", "Check", unhex("0a0178"));
    assert.equal(bytes.toString("hex"), unhex(`00000019 00000001 01 00 ${HEALTH_CHECK} 1a03 0a0178`).toString("hex"));
  });

  it("of a request with an empty message: no payload field", async () => {
    const bytes = await request("grpc.Health", "Check", Buffer.alloc(0));
    assert.equal(bytes.toString("hex"), unhex(`00000014 00000001 01 00 ${HEALTH_CHECK}`).toString("hex"));
  });

  it("of a request with a deadline of 1.5 s and metadata, keys in lower case", async () => {
    const bytes = await request("grpc.Health", "Check", unhex("0a0178"), timeoutNano(1500), [
      ["K", "v"],
      ["k", "w"],
      ["e", ""],
    ]);
    const tail = "20 80dea0cb05 2a06 0a016b 120176 2a06 0a016b 120177 2a03 0a0165";
    assert.equal(
      bytes.toString("hex"),
      unhex(`00000034 00000001 01 00 ${HEALTH_CHECK} 1a03 0a0178 ${tail}`).toString("hex"),
    );
  });

  it("of a response", async () => {
    const bytes = await written((w) => w.response(3, unhex("0a0178")));
    assert.equal(bytes.toString("hex"), unhex("00000005 00000003 02 00 1203 0a0178").toString("hex"));
  });

  it("of a response with an empty message: an empty body, no status", async () => {
    const bytes = await written((w) => w.response(3, Buffer.alloc(0)));
    assert.equal(bytes.toString("hex"), unhex("00000000 00000003 02 00").toString("hex"));
  });

  it("of an error", async () => {
    const bytes = await written((w) => w.error(5, new StatusError(12, "service X")));
    assert.equal(
      bytes.toString("hex"),
      unhex("0000000f 00000005 02 00 0a0d 080c 1209 736572766963652058").toString("hex"),
    );
  });

  it("of an error with details", async () => {
    const details = [{ typeUrl: "t", value: unhex("0102") }];
    const bytes = await written((w) => w.error(5, new StatusError(5, "no", details)));
    assert.equal(
      bytes.toString("hex"),
      unhex("00000011 00000005 02 00 0a0f 0805 12026e6f 1a07 0a0174 12020102").toString("hex"),
    );
  });

  it("of a request whose payload is not copied: the tail follows it", async () => {
    const payload = Buffer.alloc(300_000, 0xab);
    const bytes = await request("s", "m", payload, 1, [["k", "v"]]);
    const head = "000493f4 00000001 01 00 0a0173 12016d 1a e0a712";
    const expected = Buffer.concat([unhex(head), payload, unhex("2001 2a06 0a016b 120176")]);
    assert.ok(bytes.equals(expected), `${bytes.length} bytes, ${bytes.subarray(0, 24).toString("hex")}`);
  });
});

const text = fc.string({ unit: "binary", maxLength: 200 });
const key = fc.string({ maxLength: 20 }).map((s) => s.toLowerCase());
const payloads = fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ minLength: 8000, maxLength: 20_000 }));

describe("the hand-written codec", () => {
  it("encodes requests as generated code does", async () => {
    const nanos = fc.oneof(fc.constant(0), fc.nat(2 ** 31 - 1), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }));
    const pairs = fc.array(fc.tuple(key, text), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(text, text, payloads, nanos, pairs, async (service, method, payload, nano, metadata) => {
        const bytes = (await request(service, method, payload, nano, metadata)).subarray(10);
        const message = Request.create({
          service,
          method,
          payload: Buffer.from(payload),
          timeoutNano: BigInt(nano),
          metadata: metadata.map(([k, value]) => ({ key: k, value })),
        });
        assert.equal(bytes.toString("hex"), Buffer.from(Request.encode(message).finish()).toString("hex"));
        const decoded = decodeRequest(bytes);
        assert.deepEqual(
          { ...decoded, payload: decoded.payload.toString("hex") },
          {
            service: message.service.toWellFormed(),
            method: message.method.toWellFormed(),
            payload: message.payload.toString("hex"),
            timeoutNano: nano,
            metadata: metadata.map(([k, v]) => [k.toWellFormed().toLowerCase(), v.toWellFormed()]),
          },
        );
      }),
      { numRuns: 200 },
    );
  });

  it("encodes responses and statuses as generated code does", async () => {
    const details = fc.array(fc.record({ typeUrl: text, value: fc.uint8Array({ maxLength: 50 }) }), { maxLength: 3 });
    const codes = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }).filter((code) => code !== 0);
    await fc.assert(
      fc.asyncProperty(payloads, codes, text, details, async (payload, code, message, any) => {
        const ok = (await written((w) => w.response(1, payload))).subarray(10);
        const okExpected = Response.encode(Response.create({ payload: Buffer.from(payload) })).finish();
        assert.equal(ok.toString("hex"), Buffer.from(okExpected).toString("hex"));
        assert.deepEqual(decodeResponse(ok).payload, Buffer.from(payload));

        const bad = (await written((w) => w.error(1, new StatusError(code, message, any)))).subarray(10);
        const generated = Response.create({
          status: { code, message, details: any.map(({ typeUrl, value }) => ({ typeUrl, value: Buffer.from(value) })) },
        });
        assert.equal(bad.toString("hex"), Buffer.from(Response.encode(generated).finish()).toString("hex"));
        const { error } = decodeResponse(bad);
        assert.equal(error?.code, code);
        assert.equal(error?.message, message.toWellFormed());
        assert.deepEqual(
          error?.details.map((d) => [d.typeUrl, Buffer.from(d.value).toString("hex")]),
          any.map((d) => [d.typeUrl.toWellFormed(), Buffer.from(d.value).toString("hex")]),
        );
      }),
      { numRuns: 200 },
    );
  });

  it("reads a target that it knows already like any other", () => {
    const last = { bytes: Buffer.alloc(0), service: "", method: "" };
    const read = (hex: string): readonly string[] => {
      const { service, method, payload } = decodeRequest(unhex(hex), last);
      return [service, method, payload.toString("hex")];
    };
    assert.deepEqual(read("0a0173 12016d 1a01ff"), ["s", "m", "ff"]);
    assert.deepEqual(read("0a0173 12016d 1a01fe"), ["s", "m", "fe"]);
    assert.deepEqual(read("0a0173 12016d"), ["s", "m", ""]);
    assert.deepEqual(read("0a0173 12016e 1a01fd"), ["s", "n", "fd"]);
    // Another order of the fields: nothing of them may be taken for the target.
    assert.deepEqual(read("1a01aa 0a0173 12016d"), ["s", "m", "aa"]);
    assert.deepEqual(read("1a01ab 0a0173 12016d"), ["s", "m", "ab"]);
    assert.deepEqual(read("12016d 1a01ac 0a0174"), ["t", "m", "ac"]);
    assert.deepEqual(read("12016d 1a01ad 0a0175"), ["u", "m", "ad"]);
    assert.deepEqual(read("0a0173 12016d 0a0176"), ["v", "m", ""]);
  });

  it("passes over fields that it doesn't know, groups too", () => {
    const unknown = "30 ffffffffffffffffff01 39 0102030405060708 4202aabb 4d 01020304 53 0801 0b 10 01 0c 54";
    const decoded = decodeRequest(unhex(`0a0173 ${unknown} 12016d 1a01ff`));
    assert.deepEqual([decoded.service, decoded.method, decoded.payload.toString("hex")], ["s", "m", "ff"]);
  });

  it("reads a status of code 0 as success", () => {
    assert.equal(decodeResponse(unhex("0a06 12046669 6e65 1201ff")).error, undefined);
    assert.equal(decodeResponse(unhex("0a00 1201ff")).payload.toString("hex"), "ff");
  });

  it("reads a deadline that has passed already as negative", () => {
    assert.equal(decodeRequest(unhex("20 ffffffffffffffffff01")).timeoutNano, -1);
    assert.equal(decodeRequest(unhex("20 80808080808080808001")).timeoutNano, -(2 ** 63));
  });

  it("keeps deadlines within int64, and none of them 0", () => {
    assert.equal(timeoutNano(1e-9), 1);
    assert.ok(timeoutNano(1e300) < 2 ** 63);
  });

  for (const [what, hex] of [
    ["a length beyond the end", "0a05 61"],
    ["a varint without an end", "20 ff"],
    ["a varint of eleven bytes", "20 8080808080808080808001"],
    ["field number 0", "00 01"],
    ["a group that does not end", "53 0801"],
    ["a group that ends another one", "53 5c"],
    ["an end without a group", "54"],
    ["wire type 7", "0f"],
    ["a fixed64 that is cut off", "39 01"],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(() => decodeRequest(unhex(hex)), { name: "MalformedMessage" });
      assert.throws(() => decodeResponse(unhex(hex)), { name: "MalformedMessage" });
    });
  }

  it("refuses endless nesting of groups rather than overflow the stack", () => {
    assert.throws(() => decodeRequest(Buffer.alloc(1 << 20, 0x53)), { name: "MalformedMessage" });
  });

  it("decodes any bytes or says that they are malformed", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        for (const decode of [decodeRequest, decodeResponse]) {
          try {
            decode(Buffer.from(bytes));
          } catch (error) {
            assert.equal((error as Error).name, "MalformedMessage");
          }
        }
      }),
      { numRuns: 2000 },
    );
  });
});
