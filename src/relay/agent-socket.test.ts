import assert from "node:assert/strict";
import { once } from "node:events";
import { lstat } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { StubGuest } from "../../test/support/stub-guest.ts";
import { TcpProxy } from "../../test/support/tcp-proxy.ts";
import { withDeadline } from "../base/call.ts";
import { silentLogger } from "../base/log.ts";
import { AgentServiceDefinition } from "../gen/agent/agent.ts";
import { HealthCheckResponse, HealthDefinition } from "../gen/agent/health.ts";
import { GuestDefinition } from "../gen/kataremote/guest/v1/guest.ts";
import { Code, type StatusError, TtrpcClient } from "../ttrpc/index.ts";
import { AgentSocket } from "./agent-socket.ts";

const AGENT = AgentServiceDefinition.fullName;
const NOTHING = new Uint8Array();

async function world() {
  const fixture = await RelayFixture.create();
  const guest = await StubGuest.start(fixture.ca.caPem);
  const proxy = await TcpProxy.open(() => guest.port);
  await fixture.relay.connectGuest(fixture.spec(proxy.port), withDeadline(10_000));
  const path = join(fixture.dir, "agent.ttrpc");
  const socket = await AgentSocket.open(
    { path, sandboxId: fixture.sandboxId, podUid: "" },
    {
      guest: fixture.relay.guest(fixture.sandboxId),
      log: silentLogger(),
      sendTree: (tree, call) => fixture.relay.sendTree(fixture.sandboxId, tree, call),
    },
  );
  const clients: TtrpcClient[] = [];
  return {
    ...{ fixture, guest, proxy, path },
    dial: (): TtrpcClient => {
      const client = new TtrpcClient(connect(path));
      clients.push(client);
      return client;
    },
    [Symbol.asyncDispose]: async () => {
      for (const client of clients) client.close();
      await socket.close();
      await fixture[Symbol.asyncDispose]();
      await proxy.close();
      await guest.close();
    },
  };
}

describe("an agent socket", () => {
  it("is its owner's only, and passes calls through to the guest", async () => {
    await using w = await world();
    assert.equal((await lstat(w.path)).mode & 0o777, 0o600);
    const reply = await w.dial().call(HealthDefinition.fullName, "Check", NOTHING);
    assert.equal(HealthCheckResponse.decode(reply).status, 1);
  });

  it("keeps deadline, metadata, status and its details", async () => {
    await using w = await world();
    const call = w.dial().call(AGENT, "GetGuestDetails", NOTHING, {
      timeoutMs: 5000,
      metadata: [
        ["x-a", "1"],
        ["x-a", "2"],
      ],
    });
    await assert.rejects(call, (e: StatusError) => {
      assert.equal(e.code, Code.notFound);
      const [, left] = /^deadline (\d+)$/.exec(e.message) ?? [];
      assert.ok(Number(left) > 4000 && Number(left) <= 5000, e.message);
      assert.equal(e.details[0]?.typeUrl, "type.test/detail");
      assert.deepEqual(JSON.parse(Buffer.from(e.details[0]?.value ?? []).toString()), [
        ["x-a", "1"],
        ["x-a", "2"],
      ]);
      return true;
    });
    await assert.rejects(w.dial().call(AGENT, "GetGuestDetails", NOTHING), { message: "deadline -1" });
  });

  it("takes several connections, silent ones too, and a call that blocks holds nobody up", async () => {
    await using w = await world();
    const silent = connect(w.path);
    await once(silent, "connect");
    const [one, two] = [w.dial(), w.dial()];
    one.call(AGENT, "WaitProcess", NOTHING).catch(() => undefined);
    await one.call(AGENT, "StartContainer", NOTHING);
    await two.call(AGENT, "StartContainer", NOTHING);
    assert.equal(w.guest.done.get("StartContainer"), 2);
    assert.equal(silent.destroyed, false);
    silent.destroy();
  });

  it("does not let a shim notice that the path to the guest broke", async () => {
    await using w = await world();
    const client = w.dial();
    const waiting = client.call(AGENT, "WaitProcess", NOTHING);
    waiting.catch(() => undefined);
    while (!w.guest.seen.has("WaitProcess")) await new Promise((r) => setTimeout(r, 5));
    w.proxy.cut();
    await client.call(AGENT, "StartContainer", NOTHING);
    assert.equal(w.guest.done.get("WaitProcess"), 1);
  });

  it("offers the agent only", async () => {
    await using w = await world();
    await assert.rejects(w.dial().call(GuestDefinition.fullName, "Enroll", NOTHING), { code: Code.unimplemented });
  });
});
