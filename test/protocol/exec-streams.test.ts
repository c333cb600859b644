import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { describe, it } from "node:test";
import {
  ReadStreamRequest,
  ReadStreamResponse,
  WaitProcessResponse,
  WriteStreamRequest,
  WriteStreamResponse,
} from "../../src/gen/agent/agent.ts";
import type { StockForwarder } from "../fakes/stock-forwarder.ts";
import type { WireClient } from "./shim-wire.ts";
import { AGENT, createVm, newShimId, StockWorld, socketOf, startVm } from "./world.ts";

const BYTES = 3_000_000;
/** Go's shim copies with buffers of this size. */
const BUFFER = 32 << 10;
const EXEC = { containerId: "c1", execId: "e1" };
const NOTHING = new Uint8Array();

type Child = ChildProcessByStdio<Writable, Readable, null>;

/** An agent with one real process: writes wait for its pipe, reads for its output, as the kata agent's do. */
function serve(forwarder: StockForwarder, command: string, args: readonly string[]): Child {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] });
  const ended = once(child, "exit") as Promise<[number]>;
  const { stdin, stdout } = child;
  stdin.on("error", () => undefined); // whoever writes is told
  const chunks = stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let rest: Buffer = Buffer.alloc(0);
  forwarder.answers.set("WriteStdin", async (payload) => {
    const { data } = WriteStreamRequest.decode(payload);
    await new Promise<void>((resolve, reject) => stdin.write(data, (e) => (e ? reject(e) : resolve())));
    return WriteStreamResponse.encode({ len: data.length }).finish();
  });
  forwarder.answers.set("CloseStdin", async () => {
    stdin.end();
    return NOTHING;
  });
  forwarder.answers.set("ReadStdout", async (payload) => {
    const { len } = ReadStreamRequest.decode(payload);
    if (rest.length === 0) rest = (await chunks.next()).value ?? rest;
    const data = rest.subarray(0, len);
    rest = rest.subarray(data.length);
    return data.length === 0 ? NOTHING : ReadStreamResponse.encode({ data }).finish();
  });
  forwarder.answers.set("WaitProcess", async () => WaitProcessResponse.encode({ status: (await ended)[0] }).finish());
  return child;
}

async function start(world: StockWorld): Promise<WireClient> {
  const id = newShimId();
  const path = socketOf(await world.goCall("CreateVM", createVm(id)));
  assert.equal((await world.goCall("StartVM", startVm(id))).code, 0);
  return world.dial(path);
}

/** io.CopyBuffer to the agent, then CloseStdin: a short count would end Go's copy. */
async function writeAll(agent: WireClient, data: Buffer): Promise<void> {
  for (let at = 0; at < data.length; at += BUFFER) {
    const part = data.subarray(at, at + BUFFER);
    const reply = await agent.call(AGENT, "WriteStdin", WriteStreamRequest.encode({ ...EXEC, data: part }).finish());
    assert.equal(reply.code, 0, reply.message);
    assert.equal(WriteStreamResponse.decode(reply.payload).len, part.length);
  }
  assert.equal((await agent.call(AGENT, "CloseStdin", NOTHING)).code, 0);
}

/** io.CopyBuffer from the agent: empty data is the end. */
async function readAll(agent: WireClient): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const request = ReadStreamRequest.encode({ ...EXEC, len: BUFFER }).finish();
    const reply = await agent.call(AGENT, "ReadStdout", request);
    assert.equal(reply.code, 0, reply.message);
    const { data } = ReadStreamResponse.decode(reply.payload);
    if (data.length === 0) return Buffer.concat(parts);
    assert.ok(data.length <= BUFFER, "Go's shim would lose what is longer than its buffer");
    parts.push(Buffer.from(data));
  }
}

describe("an exec of Go's shim", { timeout: 60_000 }, () => {
  it("takes 3 MB of input and gives them back, ends, and has its exit code", async () => {
    await using world = await StockWorld.open();
    const agent = await start(world);
    const child = serve(world.provider.only.forwarder, "sh", ["-c", "cat; exit 37"]);
    const waiting = agent.call(AGENT, "WaitProcess", NOTHING);
    const input = randomBytes(BYTES);
    const [output] = await Promise.all([readAll(agent), writeAll(agent, input)]);
    assert.ok(output.equals(input), `${output.length} bytes came back`);
    assert.equal(WaitProcessResponse.decode((await waiting).payload).status, 37);
    child.kill();
  });

  it("whose process reads nothing holds up nobody else", async () => {
    await using world = await StockWorld.open();
    const agent = await start(world);
    const child = serve(world.provider.only.forwarder, "sleep", ["1000"]);
    const writing = writeAll(agent, randomBytes(BYTES)).catch((e: Error) => e);
    await world.until("the pipe is full", () => child.stdin.writableLength > 0);
    for (const method of ["StatsContainer", "PauseContainer", "ResumeContainer", "CreateContainer"])
      assert.equal((await agent.call(AGENT, method, NOTHING)).code, 0, method);
    child.kill("SIGKILL");
    assert.ok((await writing) instanceof Error, "and its writer is told in the end");
  });
});
