import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { constants, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { StubGuest } from "../../test/support/stub-guest.ts";
import { background, type Call } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { silentLogger } from "../base/log.ts";
import { AgentServiceDefinition } from "../gen/agent/agent.ts";
import { createClient, TtrpcClient, TtrpcServer } from "../ttrpc/index.ts";
import { KEEP_KEY, RelayClient, RelayServer, type StdioSpec, type TaskReply, type TaskRequest } from "./index.ts";
import { UnixListener } from "./unix-listener.ts";

const ok: TaskReply = { ok: true, payload: Buffer.from("fine") };

/** A relay behind its sockets, a guest, and daemons that come and go. */
async function world() {
  const fixture = await RelayFixture.create();
  const guest = await StubGuest.start(fixture.ca.caPem);
  const dir = join(fixture.dir, "r");
  const log: string[] = [];
  const server = await RelayServer.open({
    ...{ dir, log: silentLogger(), keepAliveMs: 60_000, keepAliveDeadlineMs: 1000 },
    onAttached: () => void log.push("attached"),
    onDetached: () => void log.push("detached"),
    onRestart: (argv) => void log.push(`restart by ${argv.join(" ")}`),
    onEnd: () => void log.push("end"),
  });
  const clients: RelayClient[] = [];
  const daemon = async (answer: (request: TaskRequest, call: Call) => Promise<TaskReply> = async () => ok) => {
    const client = await RelayClient.connect(dir, { log: silentLogger() }, background());
    clients.push(client);
    await client.onTaskRequest(answer);
    return client;
  };
  const id = fixture.sandboxId;
  const agent = (client: RelayClient) => createClient(AgentServiceDefinition, client.guest(id));
  const fifo = (name: string): string => {
    const path = join(fixture.dir, name);
    execFileSync("mkfifo", [path]);
    return path;
  };
  const stdio = (change: Partial<StdioSpec> = {}): StdioSpec => ({
    ...{ key: `${id}/c1/c1`, sandboxId: id, containerId: "c1", execId: "c1", terminal: false },
    ...{ stdin: "", stdout: "", stderr: "" },
    ...change,
  });
  return {
    ...{ fixture, guest, dir, log, server, daemon, id, agent, fifo, stdio },
    [Symbol.asyncDispose]: async () => {
      for (const client of clients) await client.handOver();
      await server[Symbol.asyncDispose]();
      await guest.close();
      await fixture[Symbol.asyncDispose]();
    },
  };
}

describe("a relay process", () => {
  it("enrols a guest through its daemon and passes calls, deadlines, metadata and status details on", async () => {
    await using w = await world();
    const daemon = await w.daemon();
    const facts = await daemon.connectGuest(w.fixture.spec(w.guest.port), background());
    assert.equal(facts.kernelRelease, "6.1.0-stub");
    assert.equal(facts.verifiedBy, "address");
    assert.deepEqual(w.fixture.stages, ["connected", "enrolled", "configured", "agent"]);
    await assert.rejects(
      w
        .agent(daemon)
        .getGuestDetails({ memBlockSize: true, memHotplugProbe: true }, { timeoutMs: 7_000, metadata: [["x-a", "1"]] }),
      (e: { code: number; message: string; details: { value: Uint8Array }[] }) => {
        assert.match(e.message, /^deadline (6\d{3}|7000)$/);
        assert.deepEqual(JSON.parse(Buffer.from(e.details[0]?.value ?? []).toString()), [["x-a", "1"]]);
        return true;
      },
    );
  });

  it("gives its guests, and the calls that wait, to the next daemon", async () => {
    await using w = await world();
    const first = await w.daemon(() => new Promise(() => undefined));
    await first.connectGuest(w.fixture.spec(w.guest.port), background());
    await first.openDoor({ door: "d", socketPath: join(w.fixture.dir, "d.sock") });
    const containerd = new TtrpcClient(connect(join(w.fixture.dir, "d.sock")));
    const answer = containerd.call("containerd.task.v2.Task", "State", Buffer.from("q"), {
      timeoutMs: 20_000,
      metadata: [["containerd-namespace-ttrpc", "k8s.io"]],
    });
    while ((await first.held(background())).taskKeys.size === 0) await delay(5);
    await first.handOver(); // to the relay it is as if the process had been killed: both connections end
    await delay(50);
    const seen: TaskRequest[] = [];
    const second = await w.daemon(async (request) => {
      seen.push(request);
      return ok;
    });
    const held = await second.held(background());
    assert.deepEqual([...held.guests.keys()], [w.id]);
    assert.equal(Buffer.from(await answer).toString(), "fine");
    const [request] = seen;
    assert.deepEqual(
      [request?.door, request?.method, Buffer.from(request?.payload ?? []).toString(), request?.metadata],
      ["d", "State", "q", [["containerd-namespace-ttrpc", "k8s.io"]]],
    );
    assert.ok((request?.timeoutMs ?? 0) < 20_000, "the time that has passed is taken off");
    assert.match(request?.key ?? "", /^[0-9a-f-]{36}$/);
    containerd.close();
  });

  it("lets a call whose containerd is gone not come again, and tells the daemon that has it", async () => {
    await using w = await world();
    const stopped = Promise.withResolvers<string>();
    const daemon = await w.daemon(async (request, call) => {
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      stopped.resolve(request.method);
      return ok;
    });
    await daemon.openDoor({ door: "d", socketPath: join(w.fixture.dir, "d.sock") });
    const containerd = new TtrpcClient(connect(join(w.fixture.dir, "d.sock")));
    const asked = containerd.call("s", "Create", new Uint8Array());
    while ((await daemon.held(background())).taskKeys.size === 0) await delay(5);
    containerd.close();
    await assert.rejects(asked);
    assert.equal(await stopped.promise, "Create");
    assert.equal((await daemon.held(background())).taskKeys.size, 0);
  });

  it("carries a call with a key out once, whichever daemon asks", async () => {
    await using w = await world();
    const inGuest = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    w.guest.beforeStarted = async () => {
      started.resolve();
      await inGuest.promise;
    };
    let key = "";
    const first = await w.daemon((request) => {
      key = request.key;
      return new Promise(() => undefined);
    });
    await first.connectGuest(w.fixture.spec(w.guest.port), background());
    await first.openDoor({ door: "d", socketPath: join(w.fixture.dir, "d.sock") });
    const containerd = new TtrpcClient(connect(join(w.fixture.dir, "d.sock")));
    const answer = containerd.call("s", "Start", new Uint8Array());
    while (key === "") await delay(5);
    const start = (client: RelayClient) =>
      w.agent(client).startContainer({ containerId: "c1" }, { metadata: [[KEEP_KEY, `${key}/start`]] });
    void start(first).catch(() => undefined); // never settles: its daemon is "killed"
    await started.promise;
    await first.handOver();
    const second = await w.daemon(async () => {
      await start(second);
      await start(second);
      return ok;
    });
    inGuest.resolve();
    await answer;
    assert.equal(w.guest.done.get("StartContainer"), 1);
    assert.equal(w.guest.seen.get("StartContainer"), 1);
    // The Task call is answered: the key means nothing any more.
    await start(second);
    assert.equal(w.guest.done.get("StartContainer"), 2);
    containerd.close();
  });

  it("copies output and keeps the exit, with its time, while there is no daemon", async () => {
    await using w = await world();
    const data = randomBytes(8 << 20);
    w.guest.output = { stdout: data, stderr: Buffer.alloc(0) };
    w.guest.chunkBytes = 100_000;
    let reads = 0;
    const half = Promise.withResolvers<void>();
    w.guest.beforeRead = async () => {
      if (++reads === 40) half.resolve();
      await delay(1);
    };
    const first = await w.daemon();
    await first.connectGuest(w.fixture.spec(w.guest.port), background());
    const out = w.fifo("out");
    await first.attachStdio(w.stdio({ stdout: out }), background());
    const hash = createHash("sha256");
    let bytes = 0;
    // Through the event loop: a blocking read would keep the test alive.
    const reader = new Socket({ fd: openSync(out, constants.O_RDWR | constants.O_NONBLOCK) });
    reader.on("data", (chunk) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    await half.promise;
    await first.handOver();
    while (bytes < data.length) await delay(10);
    reader.destroy();
    assert.equal(hash.digest("hex"), createHash("sha256").update(data).digest("hex"));
    w.guest.exit.resolve(37);
    while (w.guest.done.get("WaitProcess") === undefined) await delay(5);
    await delay(200);
    const before = Date.now() - 100;
    const second = await w.daemon();
    const { status, at } = await second.processExit(w.stdio().key, background());
    assert.equal(status, 37);
    assert.ok(at.getTime() < before, "the time is when it ended, not when somebody asked");
    assert.deepEqual(await second.processExit(w.stdio().key, background()), { status, at });
    assert.equal(w.guest.done.get("WaitProcess"), 1);
    await second.detachStdio(w.stdio().key);
    await assert.rejects(second.processExit(w.stdio().key, background()), { code: "not_found" });
  });

  it("stops connecting a guest whose daemon is gone", async () => {
    await using w = await world();
    const first = await w.daemon();
    w.guest.serving = false;
    void first.connectGuest(w.fixture.spec(w.guest.port), background());
    while (w.guest.configured.length === 0) await delay(5);
    await first.handOver();
    while (w.server.guestCount > 0) await delay(5);
    const second = await w.daemon();
    assert.equal((await second.held(background())).guests.size, 0);
  });

  it("tells its guests' loss, and its own end as theirs", async () => {
    await using w = await world();
    const daemon = await w.daemon();
    await daemon.connectGuest(w.fixture.spec(w.guest.port), background());
    const lost = daemon.guestLost(w.id);
    await daemon[Symbol.asyncDispose]().catch(() => undefined);
    assert.ok(w.log.includes("end"));
    const other = await w.daemon();
    const alsoLost = other.guestLost(w.id);
    await w.server[Symbol.asyncDispose]();
    await other.dead;
    assert.match((await alsoLost).reason, /relay process/);
    await assert.rejects(w.agent(other).startContainer({ containerId: "c" }), { code: "unavailable" });
    // A daemon that has handed over must hear of nothing that would make it act.
    assert.equal(await Promise.race([lost, delay(50, "nothing")]), "nothing");
  });
});

describe("a relay process that dies while it is asked to let go", () => {
  it("has let go: nothing fails, in the daemon, that the pods' end does not say", async () => {
    const dir = await mkdtemp(join(tmpdir(), "relay-"));
    const asked = deferred<void>();
    const never = new Promise<Uint8Array>(() => undefined);
    const server = new TtrpcServer({ log: silentLogger() });
    server.setFallback((_payload, { method }) => {
      if (method === "Held") return Promise.resolve(Buffer.alloc(0));
      asked.resolve();
      return never;
    });
    const listener = await UnixListener.open(join(dir, "c.sock"), (socket) => void server.accept(socket));
    try {
      const client = await RelayClient.connect(dir, { log: silentLogger() }, background());
      const released = client.detachStdio("s/c/c");
      await asked.promise;
      server.close();
      await released;
      await client.detachStdio("s/c/c");
    } finally {
      await listener.close();
      await rm(dir, { recursive: true, force: true });
    }
  });
});
