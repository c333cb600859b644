import assert from "node:assert/strict";
import { getEventListeners, once } from "node:events";
import { describe, it } from "node:test";
import { Fault } from "../base/fault.ts";
import { TtrpcClient } from "./client.ts";
import { decodeRequest } from "./envelope.ts";
import { frameBytes, pair, type TestPeer, unhex } from "./test-peer.ts";

const NOTHING = Buffer.alloc(0);

function connect(firstStreamId = 1): { client: TtrpcClient; peer: TestPeer } {
  const { stream, peer } = pair();
  return { client: new TtrpcClient(stream, { firstStreamId }), peer };
}

describe("TtrpcClient", () => {
  it("writes requests to the byte, ids 1, 3, 5", async () => {
    const { client, peer } = connect();
    const replies = [1, 2, 3].map((n) => client.call("s", "m", Buffer.of(n)));
    await peer.frame();
    await peer.frame();
    await peer.frame();
    const request = (id: string, n: string): string => `00000009 000000${id} 01 00 0a0173 12016d 1a01${n}`;
    assert.deepEqual(peer.bytes, unhex(request("01", "01") + request("03", "02") + request("05", "03")));
    peer.hex("00000003 00000005 02 00 1201c3  00000003 00000001 02 00 1201c1  00000003 00000003 02 00 1201c2");
    assert.deepEqual(await Promise.all(replies.map(async (r) => (await r)[0])), [0xc1, 0xc2, 0xc3]);
    assert.equal(client.inFlight, 0);
  });

  it("takes replies that come byte by byte", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    for (const byte of unhex("00000003 00000001 02 00 1201ff")) peer.stream.write(Buffer.of(byte));
    assert.deepEqual(Buffer.from(await reply), Buffer.of(0xff));
  });

  it("throws the peer's status with code, message and details", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    peer.hex("00000011 00000001 02 00 0a0f 0805 12026e6f 1a07 0a0174 12020102");
    await assert.rejects(reply, {
      name: "StatusError",
      code: 5,
      message: "no",
      details: [{ typeUrl: "t", value: Buffer.of(1, 2) }],
    });
  });

  it("sends the time left and metadata, and gives up by itself with code 4", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING, { timeoutMs: 40, metadata: [["Namespace", "k8s.io"]] });
    const rejected = assert.rejects(reply, { name: "StatusError", code: 4, message: "s/m: no reply within 40 ms" });
    const { timeoutNano, metadata } = decodeRequest((await peer.frame()).body);
    assert.ok(timeoutNano > 10e6 && timeoutNano <= 40e6, `${timeoutNano}`);
    assert.deepEqual(metadata, [["namespace", "k8s.io"]]);
    await rejected;
    await answersAsUsual(client, peer, 3);
  });

  it("does not send a call whose time is up or whose signal is aborted", async () => {
    const { client, peer } = connect();
    await assert.rejects(client.call("s", "m", NOTHING, { timeoutMs: 0 }), { name: "StatusError", code: 4 });
    await assert.rejects(client.call("s", "m", NOTHING, { signal: AbortSignal.abort() }), { code: "cancelled" });
    await answersAsUsual(client, peer, 1);
  });

  it("takes a deadline of years without firing at once", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING, { timeoutMs: 1e12 });
    assert.ok(decodeRequest((await peer.frame()).body).timeoutNano > 9e17);
    await new Promise((resolve) => setTimeout(resolve, 5));
    peer.hex("00000000 00000001 02 00");
    assert.equal((await reply).length, 0);
  });

  it("stops waiting when the signal is aborted and ignores the late reply", async () => {
    const { client, peer } = connect();
    const controller = new AbortController();
    const reply = client.call("s", "m", NOTHING, { signal: controller.signal });
    await peer.frame();
    controller.abort(new Fault("aborted", "the pod is being deleted"));
    await assert.rejects(reply, { code: "aborted", message: "the pod is being deleted" });
    peer.hex("00000000 00000001 02 00");
    await answersAsUsual(client, peer, 3);
  });

  it("leaves no listener on the signal of an answered call", async () => {
    const { client, peer } = connect();
    const { signal } = new AbortController();
    const reply = client.call("s", "m", NOTHING, { signal });
    assert.equal(getEventListeners(signal, "abort").length, 1);
    peer.hex("00000000 00000001 02 00");
    await reply;
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  it("refuses a request over 4 MiB with code 8 and uses no id", async () => {
    const { client, peer } = connect();
    await assert.rejects(client.call("s", "m", Buffer.alloc(4 << 20)), { name: "StatusError", code: 8 });
    await answersAsUsual(client, peer, 1);
  });

  it("fails the call alone when a reply is over 4 MiB", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    peer.stream.write(frameBytes(2, 1, Buffer.alloc((4 << 20) + 1)));
    await assert.rejects(reply, { name: "StatusError", code: 8 });
    await answersAsUsual(client, peer, 3);
  });

  it("fails the call alone when a reply is not a response, or is a stream", async () => {
    const { client, peer } = connect();
    const replies = [client.call("s", "m", NOTHING), client.call("s", "m", NOTHING)];
    peer.hex("00000002 00000001 02 00 12ff  00000001 00000003 03 00 aa");
    for (const reply of replies) await assert.rejects(reply, { name: "StatusError", code: 13 });
    await answersAsUsual(client, peer, 5);
  });

  it("ignores frames of other types and of unknown streams", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    peer.hex(
      "00000001 00000001 09 00 aa  00000001 00000001 01 00 aa  00000000 00000063 02 00  00000001 00000063 03 00 aa",
    );
    peer.hex("00000003 00000001 02 00 1201ff");
    assert.equal((await reply)[0], 0xff);
  });

  it("says that ids ran out instead of using one again", async () => {
    const { client, peer } = connect(0xffffffff);
    await answersAsUsual(client, peer, 0xffffffff);
    await assert.rejects(client.call("s", "m", NOTHING), { code: "unavailable", context: { sent: false } });
  });

  it("fails pending and later calls when the peer ends, saying whether they were sent", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    await peer.frame();
    peer.stream.end();
    await assert.rejects(reply, { name: "Fault", code: "unavailable", context: { sent: true } });
    assert.equal(await client.closed, undefined);
    await assert.rejects(client.call("s", "m", NOTHING), { code: "unavailable", context: { sent: false } });
  });

  it("reports the error of the stream as the reason of its end", async () => {
    const { stream } = pair();
    const client = new TtrpcClient(stream);
    const reply = client.call("s", "m", NOTHING);
    const reason = new Error("reset");
    stream.destroy(reason);
    await assert.rejects(reply, { code: "unavailable", cause: reason });
    assert.equal(await client.closed, reason);
  });

  it("ends the connection when the peer speaks another protocol", async () => {
    const { client, peer } = connect();
    peer.stream.write("HTTP/1.1 400 Bad Request\r\n");
    assert.match((await client.closed)?.message ?? "", /not a ttrpc frame/);
    await peer.ended;
  });

  it("closes once, for good", async () => {
    const { client, peer } = connect();
    const reply = client.call("s", "m", NOTHING);
    client.close();
    client.close();
    await assert.rejects(reply, { code: "unavailable" });
    await Promise.all([client.closed, peer.ended]);
  });

  it("can be made on a stream that is dead already", async () => {
    const { stream } = pair();
    stream.destroy();
    await once(stream, "close");
    const client = new TtrpcClient(stream);
    await client.closed;
    await assert.rejects(client.call("s", "m", NOTHING), { code: "unavailable" });
  });
});

describe("TtrpcClient with a peer that doesn't read", () => {
  it("holds calls back instead of filling memory, then sends them in order", async () => {
    const { stream, peer } = pair();
    peer.stream.pause();
    const client = new TtrpcClient(stream);
    const payload = Buffer.alloc(64 << 10);
    let answered = 0;
    for (let i = 0; i < 200; i++) void client.call("s", "m", payload).then(() => answered++);
    await new Promise(setImmediate);
    assert.ok(stream.writableLength < (1 << 20) + (128 << 10), `${stream.writableLength} bytes in the stream`);
    peer.stream.resume();
    for (let id = 1; id < 400; id += 2) {
      assert.equal((await peer.frame()).streamId, id);
      peer.send(2, id, NOTHING);
    }
    await new Promise(setImmediate);
    assert.equal(answered, 200);
  });

  it("still gives up calls that wait to be sent, and never sends those", async () => {
    const { stream, peer } = pair();
    peer.stream.pause();
    const client = new TtrpcClient(stream);
    for (let i = 0; i < 30; i++) client.call("s", "big", Buffer.alloc(64 << 10)).catch(() => undefined);
    const controller = new AbortController();
    const aborted = client.call("s", "aborted", NOTHING, { signal: controller.signal });
    const late = client.call("s", "late", NOTHING, { timeoutMs: 5 });
    controller.abort();
    await assert.rejects(aborted, { code: "cancelled" });
    await assert.rejects(late, { code: 4 });
    const last = client.call("s", "last", NOTHING);
    peer.stream.resume();
    for (let i = 0; i < 30; i++) assert.equal(decodeRequest((await peer.frame()).body).method, "big");
    const { streamId, body } = await peer.frame();
    assert.equal(decodeRequest(body).method, "last");
    peer.send(2, streamId, NOTHING);
    await last;
    client.close();
  });
});

/** The connection still works and the next id is as expected. */
async function answersAsUsual(client: TtrpcClient, peer: TestPeer, id: number): Promise<void> {
  const reply = client.call("s", "after", Buffer.of(1));
  for (;;) {
    const { streamId, body } = await peer.frame();
    if (decodeRequest(body).method !== "after") continue;
    assert.equal(streamId, id);
    peer.send(2, streamId, unhex("1201ee"));
    break;
  }
  assert.equal((await reply)[0], 0xee);
}
