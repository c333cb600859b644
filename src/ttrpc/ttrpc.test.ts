/** Client and server together, over unix sockets. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { deferred } from "../base/deferred.ts";
import { HypervisorDefinition } from "../gen/hypervisor/hypervisor.ts";
import { createClient, StatusError, TtrpcClient, TtrpcServer, type UnaryHandler } from "./index.ts";
import { frameBytes } from "./test-peer.ts";

const NOTHING = Buffer.alloc(0);
let folder: string;
let sockets = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "ttrpc-test-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** Both ends of a unix socket connection; the server's side is what `server.accept` would be given. */
async function socketPair(): Promise<{ readonly near: Socket; readonly far: Socket }> {
  const path = join(folder, String(sockets++));
  const listener = createServer();
  listener.listen(path);
  await once(listener, "listening");
  const near = connect(path);
  const [far] = (await once(listener, "connection")) as [Socket];
  listener.close();
  return { near, far };
}

async function joined(server: TtrpcServer): Promise<{ readonly client: TtrpcClient; readonly far: Socket }> {
  const { near, far } = await socketPair();
  server.accept(far);
  return { client: new TtrpcClient(near), far };
}

function serverOf(handler: UnaryHandler, options: ConstructorParameters<typeof TtrpcServer>[0] = {}): TtrpcServer {
  const server = new TtrpcServer(options);
  server.setFallback(handler);
  return server;
}

describe("a client and a server", () => {
  it("keep 2,000 calls of all sizes apart", async () => {
    const { client } = await joined(serverOf(async (payload) => payload));
    const sizes = [0, 1, 100, 8191, 8192, 8193, 70_000, 300_000];
    const calls = Array.from({ length: 2000 }, async (_, i) => {
      const payload = Buffer.alloc(sizes[i % sizes.length] as number, i);
      const reply = await client.call("s", `m${i % 600}`, payload);
      assert.ok(payload.equals(reply), `call ${i} got another reply`);
    });
    await Promise.all(calls);
    client.close();
  });

  it("speak typed messages", async () => {
    const server = new TtrpcServer();
    server.addService(HypervisorDefinition, {
      version: async (request) => ({ version: `${request.version}!` }),
      stopVM: async () => {
        throw new StatusError(5, "no VM", [{ typeUrl: "t", value: Buffer.of(1) }]);
      },
    });
    const { client } = await joined(server);
    const hypervisor = createClient(HypervisorDefinition, client);
    assert.equal((await hypervisor.version({ version: "1" })).version, "1!");
    await assert.rejects(hypervisor.stopVM({ id: "x" }), { code: 5, details: [{ typeUrl: "t", value: Buffer.of(1) }] });
    await assert.rejects(hypervisor.startVM({ id: "x" }, { timeoutMs: 1000 }), { code: 12, message: "method StartVM" });
    await assert.rejects(createClient(HypervisorDefinition, client, { as: "other" }).version({ version: "1" }), {
      code: 12,
      message: "service other",
    });
    client.close();
  });

  it("pass a status through a relay unchanged", async () => {
    const details = [{ typeUrl: "type.googleapis.com/x", value: Buffer.of(1, 2, 3) }];
    const agent = await joined(serverOf(() => Promise.reject(new StatusError(9, "pod is paused", details))));
    const relay = serverOf((payload, call) => agent.client.call(call.service, call.method, payload, call));
    const { client } = await joined(relay);
    await assert.rejects(client.call("grpc.AgentService", "StartContainer", NOTHING), {
      code: 9,
      message: "pod is paused",
      details,
    });
    client.close();
    agent.client.close();
  });

  it("pass deadline and metadata through a relay", async () => {
    const agent = await joined(
      serverOf(async (_payload, call) => Buffer.from(JSON.stringify([call.timeoutMs, call.metadata]))),
    );
    const relay = serverOf((payload, call) => agent.client.call(call.service, call.method, payload, call));
    const { client } = await joined(relay);
    const seen = await client.call("s", "m", NOTHING, { timeoutMs: 5000, metadata: [["k", "v"]] });
    const [timeoutMs, metadata] = JSON.parse(Buffer.from(seen).toString()) as [number, unknown];
    assert.ok(timeoutMs > 4000 && timeoutMs <= 5000);
    assert.deepEqual(metadata, [["k", "v"]]);
    client.close();
    agent.client.close();
  });

  it("abort the handler when the client's process closes its socket", async () => {
    const aborted = deferred<unknown>();
    const started = deferred<void>();
    const { client } = await joined(
      serverOf(async (payload, call) => {
        call.signal.addEventListener("abort", () => aborted.resolve(call.signal.reason));
        started.resolve();
        await aborted.promise;
        return payload;
      }),
    );
    const call = client.call("s", "m", NOTHING);
    await started.promise;
    client.close();
    await assert.rejects(call, { code: "unavailable" });
    assert.equal(((await aborted.promise) as Error).message, "the peer closed the connection");
  });

  it("understand each other however the bytes are split", async () => {
    const server = serverOf(async (payload) => payload);
    const chunkSizes = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 9000 }), { maxLength: 8 }),
        chunkSizes,
        async (payloads, sizes) => {
          const left = await socketPair();
          const right = await socketPair();
          cutUp(left.far, right.near, sizes);
          cutUp(right.near, left.far, sizes);
          server.accept(right.far);
          const client = new TtrpcClient(left.near);
          const replies = await Promise.all(payloads.map((payload) => client.call("s", "m", payload)));
          assert.deepEqual(replies.map(toHex), payloads.map(toHex));
          client.close();
          right.near.destroy();
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe("back-pressure", () => {
  it("keeps the memory of a server bounded while a client doesn't read, and loses nothing", async () => {
    const reply = Buffer.alloc(256 << 10, 5);
    let asked = 0;
    const server = serverOf(
      async () => {
        asked++;
        return reply;
      },
      { maxInFlight: 8 },
    );
    const { near, far } = await socketPair();
    server.accept(far);
    near.pause();
    const target = Buffer.from("0a017312016d", "hex");
    let most = 0;
    for (let id = 1; id < 1000; id += 2) {
      near.write(frameBytes(1, id, target));
      await new Promise(setImmediate);
      most = Math.max(most, far.writableLength);
    }
    assert.ok(asked < 30, `${asked} of 500 requests were read`);
    assert.ok(most <= 10 * reply.length, `${most} bytes in the server's stream`);
    let received = 0;
    near.on("data", (chunk: Buffer) => {
      received += chunk.length;
    });
    near.resume();
    const expected = 500 * (10 + 4 + reply.length);
    while (received < expected) await once(near, "data");
    assert.deepEqual([asked, received], [500, expected]);
    near.destroy();
  });

  it("stops reading at the limit of requests in flight, and goes on as they end", async () => {
    const gates: (() => void)[] = [];
    const server = serverOf(
      async (payload) => {
        await new Promise<void>((resolve) => {
          gates.push(resolve);
        });
        return payload;
      },
      { maxInFlight: 10 },
    );
    const { client, far } = await joined(server);
    const calls = Promise.all(Array.from({ length: 100 }, (_, i) => client.call("s", "m", Buffer.of(i))));
    const [connection] = server.connections;
    let done = 0;
    while (done < 100) {
      await new Promise(setImmediate);
      assert.ok((connection?.inFlight ?? 0) <= 10);
      if (connection?.inFlight === 10) assert.equal(far.isPaused(), true);
      for (const open of gates.splice(0)) {
        open();
        done++;
      }
    }
    assert.deepEqual(
      (await calls).map((reply) => reply[0]),
      Array.from({ length: 100 }, (_, i) => i),
    );
    client.close();
  });

  it("stops reading when the requests in flight hold too many bytes", async () => {
    const gates: (() => void)[] = [];
    let most = 0;
    const server = serverOf(
      async () => {
        most = Math.max(most, gates.length + 1);
        await new Promise<void>((resolve) => {
          gates.push(resolve);
        });
        return NOTHING;
      },
      { maxInFlightBytes: 1 << 20 },
    );
    const { client } = await joined(server);
    let answered = 0;
    const calls = Array.from({ length: 20 }, () =>
      client.call("s", "m", Buffer.alloc(512 << 10)).then(() => answered++),
    );
    while (answered < 20) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      for (const open of gates.splice(0)) open();
    }
    await Promise.all(calls);
    assert.equal(most, 2);
    client.close();
  });
});

/** Copies with other boundaries than the writer's. */
function cutUp(from: Socket, to: Socket, sizes: readonly number[]): void {
  let turn = 0;
  from.on("error", () => undefined);
  from.on("end", () => to.end());
  from.on("data", (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      const size = sizes[turn++ % sizes.length] as number;
      to.write(chunk.subarray(at, at + size));
      at += size;
    }
  });
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
