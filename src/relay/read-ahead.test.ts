import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { ReadStreamRequest, ReadStreamResponse } from "../gen/agent/agent.ts";
import { Code, type ServerCall, StatusError, type UnaryCaller } from "../ttrpc/index.ts";
import { ReadAhead } from "./read-ahead.ts";

const LEN = 1000;

/** A guest whose process has written some bytes, then ends or fails; a test may hold its answers back. */
class Guest implements UnaryCaller {
  readonly asked: number[] = [];
  held: Promise<void> = Promise.resolve();
  readonly #output: Buffer;
  readonly #error: Error | undefined;
  #at = 0;

  constructor(output: Buffer, error?: Error) {
    this.#output = output;
    this.#error = error;
  }

  async call(_service: string, _method: string, payload: Uint8Array): Promise<Uint8Array> {
    const { len } = ReadStreamRequest.decode(payload);
    this.asked.push(len);
    await this.held;
    const data = this.#output.subarray(this.#at, this.#at + len);
    this.#at += data.length;
    if (data.length === 0 && this.#error !== undefined) throw this.#error;
    return ReadStreamResponse.encode({ data }).finish();
  }
}

function reader(guest: Guest) {
  const ahead = new ReadAhead(guest);
  const payload = ReadStreamRequest.encode({ containerId: "c", execId: "c", len: LEN }).finish();
  return async (signal = new AbortController().signal): Promise<Buffer> => {
    const call: ServerCall = { service: "s", method: "ReadStdout", metadata: [], timeoutMs: undefined, signal };
    return ReadStreamResponse.decode(await ahead.read(payload, call)).data;
  };
}

async function readAll(read: () => Promise<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let data = await read(); data.length > 0; data = await read()) {
    assert.ok(data.length <= LEN);
    parts.push(data);
  }
  return Buffer.concat(parts);
}

const OUTPUT = Buffer.alloc(
  3_000_000,
  Uint8Array.from({ length: 251 }, (_, i) => i),
);

describe("reading a busy stream ahead", () => {
  it("gives every byte once and in order, then the end, with a few large reads", async () => {
    const guest = new Guest(OUTPUT);
    assert.ok((await readAll(reader(guest))).equals(OUTPUT));
    assert.ok(guest.asked.length < 20, `${guest.asked.length} reads`);
  });

  it("asks as the shim does while there is little to read", async () => {
    const guest = new Guest(Buffer.alloc(LEN + 10, 1));
    assert.equal((await readAll(reader(guest))).length, LEN + 10);
    assert.deepEqual(guest.asked, [LEN, LEN, LEN]);
  });

  it("gives what was read before it gives the error behind it", async () => {
    const read = reader(new Guest(OUTPUT, new StatusError(Code.notFound, "no such process")));
    let bytes = 0;
    await assert.rejects(
      async () => {
        for (;;) bytes += (await read()).length;
      },
      { code: Code.notFound },
    );
    assert.equal(bytes, OUTPUT.length);
  });

  it("loses nothing to a reader that gives up, and keeps the order of several", async () => {
    const guest = new Guest(OUTPUT);
    const read = reader(guest);
    const parts = [await read(), await read()];
    const answer = Promise.withResolvers<void>();
    guest.held = answer.promise;
    const gone = new AbortController();
    const lost = read(gone.signal);
    const others = [read(), read()];
    await turn();
    gone.abort(new Error("the shim is gone"));
    await assert.rejects(lost);
    answer.resolve();
    parts.push(...(await Promise.all(others)), await readAll(read));
    assert.ok(Buffer.concat(parts).equals(OUTPUT));
  });
});
