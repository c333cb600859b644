import assert from "node:assert/strict";
import { once } from "node:events";
import { lstat, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Call } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { silentLogger } from "../base/log.ts";
import { TtrpcClient } from "../ttrpc/index.ts";
import { InProcessRelay } from "./in-process-relay.ts";
import type { TaskReply, TaskRequest } from "./relay.ts";

const V2 = "containerd.task.v2.Task";
const V3 = "containerd.task.v3.Task";

/** An open door whose calls are answered by `answer`. */
async function door(answer: (request: TaskRequest, call: Call) => Promise<TaskReply>) {
  const dir = await mkdtemp(join(tmpdir(), "door-"));
  const path = join(dir, "s", "door.sock");
  const relay = new InProcessRelay({ log: silentLogger(), keepAliveMs: 60_000, keepAliveDeadlineMs: 1000 });
  await relay.onTaskRequest(answer);
  return {
    ...{ dir, path, relay },
    dial: async (): Promise<{ client: TtrpcClient; socket: Socket }> => {
      const socket = connect(path);
      await once(socket, "connect");
      return { client: new TtrpcClient(socket), socket };
    },
    [Symbol.asyncDispose]: async () => {
      await relay[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    },
  };
}

const ok = (text: string): TaskReply => ({ ok: true, payload: Buffer.from(text) });

describe("a door", () => {
  it("turns a call of any name into a request and its reply back", async () => {
    const seen: TaskRequest[] = [];
    await using d = await door(async (request) => {
      seen.push(request);
      return ok(`${request.service}/${request.method}`);
    });
    await d.relay.openDoor({ door: "one", socketPath: d.path });
    await d.relay.openDoor({ door: "one", socketPath: d.path });
    const { client: first } = await d.dial();
    const { client: second } = await d.dial();
    const namespace = [["containerd-namespace-ttrpc", "k8s.io"]] as const;
    const options = { metadata: namespace, timeoutMs: 5000 };
    assert.equal(Buffer.from(await first.call(V2, "State", Buffer.from("a"), options)).toString(), `${V2}/State`);
    assert.equal(Buffer.from(await second.call(V3, "Wait", Buffer.from("b"))).toString(), `${V3}/Wait`);
    const [state, wait] = seen;
    assert.deepEqual(state?.metadata, namespace);
    assert.ok(state?.timeoutMs !== undefined && state.timeoutMs > 4000 && state.timeoutMs <= 5000);
    assert.equal(Buffer.from(state.payload).toString(), "a");
    assert.equal(state.door, "one");
    assert.equal(wait?.timeoutMs, undefined);
    assert.notEqual(state.connection, wait?.connection);
    first.close();
    second.close();
  });

  it("passes an error's code and message through", async () => {
    await using d = await door(async () => ({ ok: false, code: 5, message: "container x does not exist" }));
    await d.relay.openDoor({ door: "one", socketPath: d.path });
    const { client } = await d.dial();
    await assert.rejects(client.call(V2, "Kill", new Uint8Array()), { code: 5, message: "container x does not exist" });
    client.close();
  });

  it("ends the Call of a peer that goes, and only its", async () => {
    const gone = deferred<string>();
    await using d = await door(async (request, call) => {
      if (request.method !== "Wait") return ok("");
      call.signal.addEventListener("abort", () => gone.resolve(request.method));
      return new Promise(() => undefined);
    });
    await d.relay.openDoor({ door: "one", socketPath: d.path });
    const { client: stays } = await d.dial();
    const { client: goes, socket } = await d.dial();
    goes.call(V2, "Wait", new Uint8Array()).catch(() => undefined);
    await stays.call(V2, "State", new Uint8Array());
    socket.destroy();
    assert.equal(await gone.promise, "Wait");
    await stays.call(V2, "State", new Uint8Array());
    stays.close();
  });

  it("replaces what lies at its path, lets only its owner in and leaves nothing behind", async () => {
    await using d = await door(async () => ok("new"));
    const stale = createServer().listen(join(d.dir, "stale.sock"));
    await once(stale, "listening");
    await d.relay.openDoor({ door: "one", socketPath: join(d.dir, "stale.sock") });
    assert.equal((await lstat(join(d.dir, "stale.sock"))).mode & 0o777, 0o600);
    await writeFile(join(d.dir, "file.sock"), "");
    await d.relay.openDoor({ door: "two", socketPath: join(d.dir, "file.sock") });
    for (const name of ["stale.sock", "file.sock"]) {
      const client = new TtrpcClient(connect(join(d.dir, name)));
      assert.equal(Buffer.from(await client.call(V2, "State", new Uint8Array())).toString(), "new");
      client.close();
    }
    await d.relay.closeDoor("one");
    await d.relay.closeDoor("one");
    await assert.rejects(lstat(join(d.dir, "stale.sock")), { code: "ENOENT" });
    stale.close();
  });

  it("says so when its path is too long", async () => {
    await using d = await door(async () => ok(""));
    const socketPath = join(d.dir, "x".repeat(100));
    await assert.rejects(d.relay.openDoor({ door: "one", socketPath }), {
      code: "invalid_argument",
      message: /longer than/,
    });
    await d.relay.openDoor({ door: "one", socketPath: d.path });
  });
});
