import assert from "node:assert/strict";
import { PassThrough, Writable } from "node:stream";
import { describe, it } from "node:test";
import { background, withDeadline } from "../../base/call.ts";
import { InputStream } from "./input-stream.ts";
import { OutputStream } from "./output-stream.ts";

const text = (b: Uint8Array): string => Buffer.from(b).toString();

describe("OutputStream", () => {
  it("gives bytes in order, at most as many as asked for, and nothing at the end", async () => {
    const source = new PassThrough();
    const out = new OutputStream(source);
    source.write("hello ");
    source.end("world");
    const first = await out.read({ offset: undefined, maxBytes: 4 }, background());
    assert.equal(text(first), "hell");
    let rest = "";
    for (;;) {
      const part = await out.read({ offset: undefined, maxBytes: 100 }, background());
      if (part.length === 0) break;
      rest += text(part);
    }
    assert.equal(rest, "o world");
  });

  it("gives the same bytes again for the same offset until a later one acknowledges them", async () => {
    const source = new PassThrough();
    const out = new OutputStream(source);
    source.write("abcdef");
    assert.equal(text(await out.read({ offset: 0, maxBytes: 4 }, background())), "abcd");
    assert.equal(text(await out.read({ offset: 0, maxBytes: 4 }, background())), "abcd");
    assert.equal(text(await out.read({ offset: 4, maxBytes: 4 }, background())), "ef");
    assert.equal(text(await out.read({ offset: 4, maxBytes: 4 }, background())), "ef");
    await assert.rejects(out.read({ offset: 0, maxBytes: 4 }, background()), { code: "invalid_argument" });
    await assert.rejects(out.read({ offset: 99, maxBytes: 4 }, background()), { code: "invalid_argument" });
  });

  it("waits for data and stops waiting when the caller does", async () => {
    const source = new PassThrough();
    const out = new OutputStream(source);
    const waiting = out.read({ offset: 0, maxBytes: 10 }, background());
    await assert.rejects(out.read({ offset: 0, maxBytes: 10 }, withDeadline(10)), { code: "deadline_exceeded" });
    source.write("late");
    assert.equal(text(await waiting), "late");
  });

  it("stops reading from the process while nobody reads from it", async () => {
    const source = new PassThrough({ highWaterMark: 1 << 16 });
    const out = new OutputStream(source);
    let taken = 0;
    const block = Buffer.alloc(1 << 16, 7);
    while (source.write(block) || taken < 64) {
      taken += 1;
      await new Promise(setImmediate);
      if (taken > 100) break;
    }
    assert.ok(source.isPaused(), "the source is paused");
    let total = 0;
    source.end();
    for (;;) {
      const part = await out.read({ offset: total, maxBytes: 1 << 20 }, background());
      if (part.length === 0) break;
      total += part.length;
    }
    assert.equal(total % (1 << 16), 0);
    assert.ok(total > 1 << 20);
  });

  it("ends after the process even when somebody else holds the pipe", async () => {
    const source = new PassThrough();
    const out = new OutputStream(source);
    source.write("last words");
    out.processEnded();
    assert.equal(text(await out.read({ offset: 0, maxBytes: 100 }, background())), "last words");
    const keepAlive = setTimeout(() => undefined, 5_000); // the linger timer alone keeps no process alive
    assert.equal((await out.read({ offset: 10, maxBytes: 100 }, background())).length, 0);
    clearTimeout(keepAlive);
  });
});

describe("InputStream", () => {
  function sink(): { readonly stream: Writable; readonly got: () => string; release: () => void } {
    let got = "";
    let waiting: (() => void) | undefined;
    let held = true;
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        got += chunk.toString();
        if (held) waiting = done;
        else done();
      },
    });
    return {
      stream,
      got: () => got,
      release: () => {
        held = false;
        waiting?.();
      },
    };
  }

  it("writes a repeated offset once, and answers the repetition when the first write is done", async () => {
    const { stream, got, release } = sink();
    const input = new InputStream(stream, { closable: true });
    const first = input.write(Buffer.from("abc"), 0);
    const again = input.write(Buffer.from("abc"), 0);
    release();
    assert.deepEqual(await Promise.all([first, again]), [3, 3]);
    assert.equal(await input.write(Buffer.from("cdef"), 2), 4);
    assert.equal(got(), "abcdef");
  });

  it("refuses a gap, and anything after the close", async () => {
    const { stream, got, release } = sink();
    release();
    const input = new InputStream(stream, { closable: true });
    await assert.rejects(input.write(Buffer.from("x"), 5), { code: "invalid_argument" });
    await input.write(Buffer.from("x"), undefined);
    await input.write(Buffer.alloc(0), undefined);
    await assert.rejects(input.write(Buffer.from("y"), 1), { code: "failed_precondition" });
    assert.equal(await input.write(Buffer.from("x"), 0), 1);
    assert.equal(got(), "x");
    assert.ok(stream.writableEnded);
  });

  it("says so when the process has closed its end", async () => {
    const stream = new Writable({
      write: (_c, _e, done) => done(Object.assign(new Error("EPIPE"), { code: "EPIPE" })),
    });
    const input = new InputStream(stream, { closable: true });
    await assert.rejects(input.write(Buffer.from("x"), 0), { code: "failed_precondition" });
  });
});
