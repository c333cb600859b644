import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../base/fault.ts";
import type { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import type { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import { REQUEST_KEY, STREAM_OFFSET } from "../../guestwire/index.ts";
import type { Metadata, ServerCall } from "../../ttrpc/index.ts";
import { RepeatedRequests } from "./repeated-requests.ts";

function call(metadata: Metadata, signal = new AbortController().signal): ServerCall {
  return { signal, timeoutMs: undefined, metadata, service: "s", method: "m" };
}
const keyed = (key: string): Metadata => [[REQUEST_KEY, key]];

/** An implementation whose answers the test gives. */
function guest(requests: RepeatedRequests) {
  const started: PromiseWithResolvers<{ present: boolean }>[] = [];
  const signals: AbortSignal[] = [];
  const wrapped = requests.wrap<typeof GuestDefinition>({
    statTree: (_request, { signal }) => {
      const answer = Promise.withResolvers<{ present: boolean }>();
      started.push(answer);
      signals.push(signal);
      return answer.promise;
    },
  });
  const statTree = wrapped.statTree!;
  return { started, signals, stat: (c: ServerCall) => statTree({ treeId: "t" }, c) };
}

describe("RepeatedRequests", () => {
  it("runs a call once, whoever repeats it while it runs or afterwards", async () => {
    const { started, stat } = guest(new RepeatedRequests());
    const first = stat(call(keyed("a")));
    const second = stat(call(keyed("a")));
    started[0]?.resolve({ present: true });
    assert.deepEqual(await Promise.all([first, second, stat(call(keyed("a")))]), Array(3).fill({ present: true }));
    assert.equal(started.length, 1);
    void stat(call(keyed("b")));
    assert.equal(started.length, 2);
  });

  it("gives a remembered error again", async () => {
    const { started, stat } = guest(new RepeatedRequests());
    const first = stat(call(keyed("a")));
    started[0]?.reject(new Fault("not_found", "no such tree"));
    await assert.rejects(first, { code: "not_found" });
    await assert.rejects(stat(call(keyed("a"))), { code: "not_found" });
    assert.equal(started.length, 1);
  });

  it("does not stop the work when the connection of its caller breaks", async () => {
    const { started, signals, stat } = guest(new RepeatedRequests());
    const connection = new AbortController();
    const first = stat(call(keyed("a"), connection.signal));
    connection.abort(new Fault("cancelled", "connection lost"));
    await assert.rejects(first, { code: "cancelled" });
    assert.equal(signals[0]?.aborted, false);
    const again = stat(call(keyed("a")));
    started[0]?.resolve({ present: true });
    assert.deepEqual(await again, { present: true });
  });

  it("leaves calls without a key, and reads and writes with an offset, alone", () => {
    const { started, stat } = guest(new RepeatedRequests());
    for (const metadata of [
      [],
      [],
      [...keyed("a"), [STREAM_OFFSET, "0"] as const],
      [...keyed("a"), [STREAM_OFFSET, "0"] as const],
    ]) {
      void stat(call(metadata));
    }
    assert.equal(started.length, 4);
  });

  it("keeps no more than a few MiB of output that was read without offsets, and the last piece always", async () => {
    const requests = new RepeatedRequests();
    let reads = 0;
    const { readStdout } = requests.wrap<typeof AgentServiceDefinition>({
      readStdout: async () => ({ data: Buffer.alloc(256 << 10, ++reads) }),
    });
    const read = (key: string) => readStdout!({ containerId: "c", execId: "c", len: 1 << 20 }, call(keyed(key)));
    for (let i = 0; i < 200; i += 1) await read(`k${i}`);
    assert.ok(requests.size <= 34, `${requests.size} replies of 256 KiB kept`);
    assert.equal((await read("k199")).data[0], 200);
    assert.equal(reads, 200);
  });

  it("forgets replies after ten minutes and when there are too many", async () => {
    let now = 0;
    const requests = new RepeatedRequests(() => now);
    const { started, stat } = guest(requests);
    const answer = async (key: string): Promise<void> => {
      const reply = stat(call(keyed(key)));
      started.at(-1)?.resolve({ present: true });
      await reply;
    };
    for (let i = 0; i < 5000; i += 1) await answer(`k${i}`);
    assert.ok(requests.size <= 4097, `${requests.size} kept`);
    now = 11 * 60_000;
    await answer("late");
    assert.equal(requests.size, 1);
  });
});
