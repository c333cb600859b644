import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { pino } from "pino";
import { deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import { ended, sleep } from "../base/retry.ts";
import { HypervisorDefinition } from "../gen/hypervisor/hypervisor.ts";
import { Request } from "../gen/ttrpc/ttrpc.ts";
import { decodeResponse } from "./envelope.ts";
import { TtrpcServer, type TtrpcServerOptions } from "./server.ts";
import { StatusError } from "./status.ts";
import { frameBytes, pair, type TestPeer, unhex } from "./test-peer.ts";
import type { ServerCall, UnaryHandler } from "./types.ts";

const NOTHING = Buffer.alloc(0);
const REQUEST_S_M = "0a0173 12016d"; // service s, method m

function request(fields: Partial<Request>): Uint8Array {
  return Request.encode(Request.create({ service: "s", method: "m", ...fields })).finish();
}

/** A server whose method s/m is `handler`, and a peer connected to it. */
function serve(handler: UnaryHandler, options: TtrpcServerOptions = {}) {
  const server = new TtrpcServer(options);
  server.addHandler("s", "m", handler);
  const { stream, peer } = pair();
  const closed = deferred<Error | undefined>();
  const connection = server.accept(stream, { onClose: closed.resolve });
  return { server, stream, peer, connection, closed: closed.promise };
}

const echo: UnaryHandler = async (payload) => payload;

async function errorOn(peer: TestPeer, streamId: number): Promise<StatusError> {
  const frame = await peer.frame();
  assert.deepEqual([frame.type, frame.streamId], [2, streamId]);
  const { error } = decodeResponse(frame.body);
  assert.ok(error !== undefined, "the call succeeded");
  return error;
}

describe("TtrpcServer", () => {
  it("answers to the byte, without a status", async () => {
    const { peer } = serve(echo);
    peer.hex(`00000009 00000001 01 00 ${REQUEST_S_M} 1a0142  00000006 00000003 01 00 ${REQUEST_S_M}`);
    await peer.frame();
    await peer.frame();
    assert.deepEqual(peer.bytes, unhex("00000003 00000001 02 00 120142  00000000 00000003 02 00"));
  });

  it("answers a request that comes byte by byte", async () => {
    const { peer } = serve(echo);
    for (const byte of unhex(`00000009 00000001 01 00 ${REQUEST_S_M} 1a0142`)) peer.stream.write(Buffer.of(byte));
    assert.deepEqual((await peer.frame()).body, unhex("120142"));
  });

  it("runs handlers at the same time and answers in the order they end", async () => {
    const gates = [deferred<Uint8Array>(), deferred<Uint8Array>(), deferred<Uint8Array>()];
    const { peer, connection } = serve((payload) => gates[payload[0] as number]!.promise);
    for (const [i, id] of [1, 3, 5].entries()) peer.send(1, id, request({ payload: Buffer.of(i) }));
    await new Promise(setImmediate);
    assert.equal(connection.inFlight, 3);
    const order: number[] = [];
    for (const i of [2, 0, 1]) {
      gates[i]!.resolve(NOTHING);
      order.push((await peer.frame()).streamId);
    }
    assert.deepEqual(order, [5, 1, 3]);
  });

  it("gives the handler deadline, metadata, names and connection", async () => {
    const seen = deferred<ServerCall>();
    const { peer, connection } = serve(async (payload, call) => {
      seen.resolve(call);
      return payload;
    });
    peer.send(1, 1, request({ timeoutNano: 1_500_000_000n, metadata: [{ key: "A", value: "b" }] }));
    const call = await seen.promise;
    assert.deepEqual(
      [call.service, call.method, call.timeoutMs, call.metadata, call.connection],
      ["s", "m", 1500, [["a", "b"]], connection.id],
    );
  });

  it("answers Unimplemented for unknown services and methods, worded as the Go server does", async () => {
    const { peer } = serve(echo);
    peer.send(1, 1, request({ service: "X" }));
    peer.send(1, 3, request({ method: "M" }));
    const [service, method] = [await errorOn(peer, 1), await errorOn(peer, 3)];
    assert.deepEqual([service.code, service.message, method.code, method.message], [12, "service X", 12, "method M"]);
  });

  it("gives unknown calls to the fallback as bytes", async () => {
    const { peer, server } = serve(echo);
    server.setFallback(async (payload, call) =>
      Buffer.concat([payload, Buffer.from(`${call.service}/${call.method}`)]),
    );
    peer.send(1, 1, request({ service: "grpc.X", method: "Y", payload: Buffer.from("p:") }));
    assert.equal(decodeResponse((await peer.frame()).body).payload.toString(), "p:grpc.X/Y");
  });

  it("serves a generated service, also under another name", async () => {
    const { peer, server } = serve(echo);
    const { version } = HypervisorDefinition.methods;
    class Hypervisor {
      readonly #version = "0.0.0";
      async version(): Promise<{ version: string }> {
        return { version: this.#version };
      }
    }
    server.addService(HypervisorDefinition, new Hypervisor());
    server.addService(HypervisorDefinition, new Hypervisor(), { as: "hypervisor.v2.Hypervisor" });
    for (const [id, service] of [
      [1, "hypervisor.Hypervisor"],
      [3, "hypervisor.v2.Hypervisor"],
    ] as const) {
      peer.send(1, id, request({ service, method: "Version" }));
      assert.equal(version.responseType.decode(decodeResponse((await peer.frame()).body).payload).version, "0.0.0");
    }
    peer.send(1, 5, request({ service: "hypervisor.Hypervisor", method: "StopVM" }));
    assert.deepEqual((await errorOn(peer, 5)).message, "method StopVM");
    peer.send(1, 7, request({ service: "hypervisor.Hypervisor", method: "Version", payload: Buffer.of(0x0a, 0x09) }));
    assert.equal((await errorOn(peer, 7)).code, 3);
  });

  it("refuses a second handler for a method", () => {
    const { server } = serve(echo);
    assert.throws(() => server.addHandler("s", "m", echo), { code: "already_exists" });
  });

  it("maps what a handler throws", async () => {
    const lines: { service: string; err: { message: string } }[] = [];
    const log = pino({ level: "error" }, { write: (line) => lines.push(JSON.parse(line)) });
    const thrown = [
      new Fault("not_found", "no container c1"),
      new StatusError(9, "nine", [{ typeUrl: "t", value: Buffer.of(1) }]),
      new TypeError("a bug"),
      new DOMException("aborted elsewhere", "AbortError"),
    ];
    const { peer } = serve((payload) => Promise.reject(thrown[payload[0] as number]), { log });
    const codes: number[] = [];
    for (const i of thrown.keys()) {
      peer.send(1, i * 2 + 1, request({ payload: Buffer.of(i) }));
      const error = await errorOn(peer, i * 2 + 1);
      codes.push(error.code);
      assert.equal(error.message, thrown[i]?.message);
      assert.equal(error.details.length, i === 1 ? 1 : 0);
    }
    assert.deepEqual(codes, [5, 9, 2, 2]);
    assert.deepEqual(
      lines.map((line) => line.err.message),
      ["a bug", "aborted elsewhere"],
    );
  });

  it("fails the call when a handler throws before it returns a promise, or returns no bytes", async () => {
    const { peer } = serve((payload) => {
      if (payload.length === 0) throw new Fault("aborted", "at once");
      return Promise.resolve(undefined as unknown as Uint8Array);
    });
    peer.send(1, 1, request({}));
    assert.equal((await errorOn(peer, 1)).code, 10);
    peer.send(1, 3, request({ payload: Buffer.of(1) }));
    assert.equal((await errorOn(peer, 3)).code, 2);
  });

  it("answers whatever a handler throws", async () => {
    const thrown: unknown[] = [undefined, Object.create(null), Object.assign(new Error(), { message: { a: 1 } })];
    const { peer } = serve((payload) => Promise.reject(thrown[payload[0] as number]));
    for (const i of thrown.keys()) {
      peer.send(1, i * 2 + 1, request({ payload: Buffer.of(i) }));
      assert.equal((await errorOn(peer, i * 2 + 1)).code, 2);
    }
  });

  it("refuses ids that are even, zero, used or going down, on that stream", async () => {
    const { peer } = serve(echo);
    peer.send(1, 7, request({}));
    assert.equal((await peer.frame()).streamId, 7);
    for (const id of [0, 2, 8, 7, 5]) {
      peer.send(1, id, request({}));
      assert.equal((await errorOn(peer, id)).code, 3);
    }
    peer.send(1, 9, request({}));
    assert.equal((await peer.frame()).body.length, 0);
  });

  it("ignores data frames, responses and types to come", async () => {
    const { peer } = serve(echo);
    peer.hex("00000001 00000001 03 00 aa  00000000 00000002 02 00  00000001 00000001 7f 00 aa");
    peer.send(1, 1, request({ payload: Buffer.of(1) }));
    await peer.frame();
    assert.deepEqual(peer.bytes, unhex("00000003 00000001 02 00 120101"));
  });

  it("drops an oversize request and answers that stream with code 8", async () => {
    const { peer } = serve(echo);
    peer.stream.write(frameBytes(1, 1, Buffer.alloc((4 << 20) + 1)));
    assert.equal((await errorOn(peer, 1)).code, 8);
    peer.send(1, 3, request({ payload: Buffer.of(1) }));
    assert.equal((await peer.frame()).body.length, 3);
  });

  it("answers code 8 instead of an oversize reply or status", async () => {
    const { peer } = serve((payload) =>
      payload.length === 0
        ? Promise.resolve(Buffer.alloc(4 << 20))
        : Promise.reject(new StatusError(5, "m".repeat(5 << 20))),
    );
    peer.send(1, 1, request({}));
    assert.equal((await errorOn(peer, 1)).code, 8);
    peer.send(1, 3, request({ payload: Buffer.of(1) }));
    const cut = await errorOn(peer, 3);
    assert.equal(cut.code, 5);
    assert.ok(cut.message.startsWith("mmm") && cut.message.length < 1 << 20);
  });

  it("answers InvalidArgument to a body that is not a request", async () => {
    const { peer } = serve(echo);
    peer.send(1, 1, Buffer.of(0xff));
    assert.equal((await errorOn(peer, 1)).code, 3);
    peer.send(1, 3, request({ payload: Buffer.of(1) }));
    assert.equal((await peer.frame()).body.length, 3);
  });

  it("closes only the connection that speaks another protocol", async () => {
    const { server, peer, closed } = serve(echo);
    const other = pair();
    server.accept(other.stream);
    peer.stream.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert.match((await closed)?.message ?? "", /not a ttrpc frame/);
    await peer.ended;
    other.peer.send(1, 1, request({ payload: Buffer.of(1) }));
    assert.equal((await other.peer.frame()).body.length, 3);
    assert.equal(server.connections.size, 1);
  });
});

describe("garbage behind a request that fills the limit", () => {
  it("ends the connection when it is its turn", async () => {
    const gate = deferred<void>();
    const { peer, closed } = serve(
      async (payload) => {
        await gate.promise;
        return payload;
      },
      { maxInFlight: 1 },
    );
    peer.stream.write(Buffer.concat([frameBytes(1, 1, request({})), Buffer.from("GET / HTTP/1.1\r\n\r\n")]));
    await new Promise(setImmediate);
    gate.resolve();
    assert.match((await closed)?.message ?? "", /not a ttrpc frame/);
  });
});

describe("the signal of a call", () => {
  it("is aborted at the deadline, and the reply is code 4", async () => {
    const { peer } = serve(async (payload, call) => {
      await sleep(60_000, call);
      return payload;
    });
    peer.send(1, 1, request({ timeoutNano: 5_000_000n }));
    assert.equal((await errorOn(peer, 1)).code, 4);
  });

  it("turns the AbortError of a Node function into code 4 as well", async () => {
    const { peer } = serve(async (_payload, call) => {
      const error = await new Promise<Error>((resolve) => {
        call.signal.addEventListener("abort", () => resolve(new DOMException("aborted", "AbortError")));
      });
      throw error;
    });
    peer.send(1, 1, request({ timeoutNano: 5_000_000n }));
    assert.equal((await errorOn(peer, 1)).code, 4);
  });

  it("is aborted when the peer goes away, for every call in flight", async () => {
    const reasons: string[] = [];
    const all = deferred<void>();
    const { peer, connection, closed } = serve(async (_payload, call) => {
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      if (reasons.push(ended(call).code) === 3) all.resolve();
      return NOTHING;
    });
    for (const id of [1, 3, 5]) peer.send(1, id, request({}));
    await new Promise(setImmediate);
    peer.stream.end();
    await all.promise;
    assert.deepEqual(reasons, ["cancelled", "cancelled", "cancelled"]);
    assert.equal(await closed, undefined);
    await new Promise(setImmediate);
    assert.equal(connection.inFlight, 0);
  });

  it("is aborted already when it is first looked at after the peer went away", async () => {
    const gate = deferred<void>();
    const seen = deferred<AbortSignal>();
    const { peer, closed } = serve(async (payload, call) => {
      await gate.promise;
      seen.resolve(call.signal);
      return payload;
    });
    peer.send(1, 1, request({}));
    await new Promise(setImmediate);
    peer.stream.destroy();
    await closed;
    gate.resolve();
    assert.equal((await seen.promise).aborted, true);
  });

  it("is not aborted after the call was answered", async () => {
    const signals: AbortSignal[] = [];
    const { peer, closed } = serve(async (payload, call) => {
      signals.push(call.signal);
      return payload;
    });
    peer.send(1, 1, request({ timeoutNano: 1_000_000n }));
    await peer.frame();
    peer.stream.end();
    await closed;
    assert.deepEqual(
      signals.map((signal) => signal.aborted),
      [false],
    );
  });

  it("does not matter for a call that was late when it came: the handler is not asked", async () => {
    let asked = 0;
    const { peer } = serve(async (payload) => {
      asked++;
      return payload;
    });
    peer.send(1, 1, request({ timeoutNano: -5n }));
    assert.equal((await errorOn(peer, 1)).code, 4);
    assert.equal(asked, 0);
  });
});

describe("close", () => {
  it("delivers what was answered, aborts what was not, and ends the stream", async () => {
    const aborted = deferred<void>();
    const { peer, connection, server, closed } = serve(async (payload, call) => {
      if (payload[0] === 1) connection.close();
      else await new Promise((resolve) => call.signal.addEventListener("abort", resolve)).then(() => aborted.resolve());
      return payload;
    });
    peer.send(1, 1, request({ payload: Buffer.of(0) }));
    server.addHandler("s", "quick", echo);
    peer.send(1, 3, request({ method: "quick", payload: Buffer.of(7) }));
    assert.equal((await peer.frame()).streamId, 3);
    peer.send(1, 5, request({ payload: Buffer.of(1) }));
    await Promise.all([aborted.promise, closed, peer.ended]);
    assert.equal(server.connections.size, 0);
    connection.close();
  });

  it("of the server closes every connection", async () => {
    const { server, peer } = serve(echo);
    const other = pair();
    server.accept(other.stream);
    server.close();
    await Promise.all([peer.ended, other.peer.ended]);
  });
});

describe("garbage", () => {
  it("never does more than end its connection", async () => {
    const server = new TtrpcServer();
    server.addHandler("s", "m", echo);
    const good = frameBytes(1, 1, request({ payload: Buffer.alloc(20, 1), metadata: [{ key: "k", value: "v" }] }));
    const mutation = fc.record({ at: fc.nat(good.length - 1), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        fc.uint8Array(),
        async (mutations, noise) => {
          const bytes = Buffer.from(good);
          for (const { at, value } of mutations) bytes[at] = value;
          const { stream, peer } = pair();
          const closed = deferred<Error | undefined>();
          server.accept(stream, { onClose: closed.resolve });
          peer.stream.write(Buffer.concat([bytes, noise, good]));
          peer.stream.end();
          await closed.promise;
        },
      ),
      { numRuns: 500 },
    );
    const { stream, peer } = pair();
    server.accept(stream);
    peer.send(1, 1, request({ payload: Buffer.of(1) }));
    assert.equal((await peer.frame()).body.length, 3);
    assert.equal(server.connections.size, 1);
  });
});
