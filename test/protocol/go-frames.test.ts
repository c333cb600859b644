import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { stockGuest } from "../../src/guest/boot/stock-guest.ts";
import type { Codec, ServiceImplementation } from "../../src/ttrpc/index.ts";
import { TinyAgent } from "../fakes/tiny-agent.ts";
import { StockWorker } from "../support/stock-worker.ts";
import { createVm, newShimId, StockWorld, socketOf, startVm } from "./world.ts";

interface Step {
  readonly sends: boolean;
  readonly stream: number;
  /** What the line above says. */
  readonly what: string;
  readonly frame: Buffer;
}

const WAIT_MS = 20_000;

/** golden/go-shim-frames.golden. */
async function steps(): Promise<readonly Step[]> {
  const text = await readFile(new URL("golden/go-shim-frames.golden", import.meta.url), "utf8");
  let what = "";
  return text.split("\n").flatMap((line) => {
    if (line.startsWith("#")) what = line.slice(2);
    if (!/^[<>] /.test(line)) return [];
    const frame = Buffer.from(line.slice(2).replace("|", ""), "hex");
    return [{ sends: line.startsWith(">"), stream: frame.readUInt32BE(4), what, frame }];
  });
}

/** Plays the file against a connection: what it sends goes out byte for byte, what comes back must be the same bytes. */
async function play(socket: Socket): Promise<void> {
  const arrived = new Map<number, Buffer>();
  let rest = Buffer.alloc(0);
  let wake: () => void = () => undefined;
  socket.on("data", (data: Buffer) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 10 && rest.length >= 10 + rest.readUInt32BE(0)) {
      const length = 10 + rest.readUInt32BE(0);
      arrived.set(rest.readUInt32BE(4), Buffer.from(rest.subarray(0, length)));
      rest = rest.subarray(length);
    }
    wake();
  });
  const answered: number[] = [];
  for (const { sends, stream, what, frame } of await steps()) {
    if (sends) {
      socket.write(frame);
      continue;
    }
    const end = performance.now() + WAIT_MS;
    while (!arrived.has(stream)) {
      assert.ok(performance.now() < end, `no answer on stream ${stream} after ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    assert.equal(arrived.get(stream)?.toString("hex"), frame.toString("hex"), `stream ${stream} after ${what}`);
    answered.push(stream);
  }
  assert.deepEqual([...arrived.keys()].sort(), answered.sort(), "nothing else came");
}

/** Payloads of the file's requests to the agent: what must arrive there, in this order. */
async function payloads(): Promise<readonly string[]> {
  return (await steps()).flatMap(({ sends, frame }) => {
    const { method, payload } = readRequest(frame.subarray(10));
    return sends && method !== "Check" ? [`${method} ${payload.toString("hex")}`] : [];
  });
}

/** Service, method and payload are the first three fields, each with its length. */
function readRequest(body: Buffer): { method: string; payload: Buffer } {
  const fields: Buffer[] = [];
  for (let at = 0; at < body.length && (body[at] ?? 0) >> 3 <= 3; ) {
    const field = (body[at++] ?? 0) >> 3;
    let length = body[at++] ?? 0;
    if (length > 127) length = (length & 127) | ((body[at++] ?? 0) << 7);
    fields[field] = body.subarray(at, at + length);
    at += length;
  }
  return { method: fields[2]?.toString() ?? "", payload: fields[3] ?? Buffer.alloc(0) };
}

const seen = (agent: TinyAgent): readonly string[] =>
  agent.requests.map(({ method, payload }) => `${method} ${payload.toString("hex")}`);

describe("a pod of Go's shim, frame by frame", { timeout: 120_000 }, () => {
  it("through our node to the stock forwarder: exec, pause, a second container, signals and ends are the same bytes", async () => {
    await using world = await StockWorld.open();
    const id = newShimId();
    const path = socketOf(await world.goCall("CreateVM", createVm(id)));
    assert.equal((await world.goCall("StartVM", startVm(id))).code, 0);
    const agent = new TinyAgent();
    const { forwarder } = world.provider.only;
    for (const { name } of Object.values(AgentServiceDefinition.methods))
      forwarder.answers.set(name, (payload) => agent.answer(name, payload));
    const socket = connect(path);
    await once(socket, "connect");
    await play(socket);
    socket.destroy();
    assert.deepEqual(seen(agent), await payloads());
  });

  it("through the stock adaptor's connection to our guest: the same bytes again", async () => {
    const directory = await mkdtemp(join(tmpdir(), "go-frames-"));
    const worker = await StockWorker.make();
    const agent = new TinyAgent();
    await using guest = await stockGuest({
      ...{ userData: worker.userData(), directory, certificates: join(directory, "none") },
      ...{ agent: typed(agent), setPodNetwork: async () => undefined },
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    });
    const socket = await worker.dial(await guest.listen(0, "127.0.0.1"));
    await play(socket);
    socket.destroy();
    assert.deepEqual(seen(agent), await payloads(), "decoded and encoded again nothing is lost");
    await rm(directory, { recursive: true });
  });
});

/** The agent behind the messages that our guest decodes. */
function typed(agent: TinyAgent): ServiceImplementation<typeof AgentServiceDefinition> {
  const handlers = Object.entries(AgentServiceDefinition.methods).map(([key, method]) => {
    const request = method.requestType as Codec<unknown>;
    const response = method.responseType as Codec<unknown>;
    const handler = async (message: unknown): Promise<unknown> =>
      response.decode(await agent.answer(method.name, request.encode(message).finish()));
    return [key, handler] as const;
  });
  return Object.fromEntries(handlers) as ServiceImplementation<typeof AgentServiceDefinition>;
}
