import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { StubGuest } from "../../test/support/stub-guest.ts";
import { TcpProxy } from "../../test/support/tcp-proxy.ts";
import { background, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { AgentServiceDefinition } from "../gen/agent/agent.ts";
import { CertificateAuthority } from "../identity/index.ts";

const AGENT = AgentServiceDefinition.fullName;
const NOTHING = new Uint8Array();

/** A guest behind a path that can be cut, connected. */
async function connected(fixture: RelayFixture, change: Parameters<RelayFixture["spec"]>[1] = {}) {
  const guest = await StubGuest.start(fixture.ca.caPem);
  const proxy = await TcpProxy.open(() => guest.port);
  const facts = await fixture.relay.connectGuest(fixture.spec(proxy.port, change), withDeadline(10_000));
  return {
    guest,
    proxy,
    facts,
    [Symbol.asyncDispose]: async () => {
      await fixture.relay[Symbol.asyncDispose]();
      await proxy.close();
      await guest.close();
    },
  };
}

describe("connecting a guest", () => {
  it("enrols, configures and answers once the agent serves", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture);
    assert.deepEqual(fixture.stages, ["connected", "enrolled", "configured", "agent"]);
    assert.deepEqual(peer.guest.configured, [fixture.sandboxId]);
    assert.equal(peer.facts.kernelRelease, "6.1.0-stub");
    assert.equal(peer.facts.listeningMs, 1234);
    assert.equal(peer.facts.verifiedBy, "address");
  });

  it("waits for an agent that does not serve yet", async () => {
    await using fixture = await RelayFixture.create();
    const guest = await StubGuest.start(fixture.ca.caPem);
    guest.serving = false;
    const connecting = fixture.relay.connectGuest(fixture.spec(guest.port), withDeadline(10_000));
    while (!fixture.stages.includes("configured")) await new Promise((r) => setTimeout(r, 5));
    assert.ok(!fixture.stages.includes("agent"));
    guest.serving = true;
    await connecting;
    await fixture.relay.disconnectGuest(fixture.sandboxId);
    await guest.close();
  });

  it("gets through a path that first takes connections and stays silent", async () => {
    await using fixture = await RelayFixture.create();
    const deaf = createServer(() => undefined).listen(0, "127.0.0.1");
    await once(deaf, "listening");
    const guest = await StubGuest.start(fixture.ca.caPem);
    let dials = 0;
    const proxy = await TcpProxy.open(() => (++dials <= 3 ? (deaf.address() as AddressInfo).port : guest.port));
    const start = performance.now();
    await fixture.relay.connectGuest(fixture.spec(proxy.port), withDeadline(10_000));
    assert.ok(performance.now() - start < 1900, "did not wait for a silent attempt to time out");
    await fixture.relay[Symbol.asyncDispose]();
    await proxy.close();
    await guest.close();
    deaf.close();
  });

  it("tries every address", async () => {
    await using fixture = await RelayFixture.create();
    const guest = await StubGuest.start(fixture.ca.caPem);
    const spec = fixture.spec(guest.port, { addresses: ["127.0.0.2", "127.0.0.1"] });
    await fixture.relay.connectGuest(spec, withDeadline(10_000));
    await fixture.relay.disconnectGuest(fixture.sandboxId);
    await guest.close();
  });

  it("passes on that another guest claimed the sandbox", async () => {
    await using fixture = await RelayFixture.create();
    const guest = await StubGuest.start(fixture.ca.caPem);
    const sign = async (): Promise<never> => {
      throw new Fault("already_exists", "another key was pinned");
    };
    await assert.rejects(fixture.relay.connectGuest(fixture.spec(guest.port, { sign }), withDeadline(10_000)), {
      code: "already_exists",
    });
    assert.deepEqual(guest.configured, []);
    await guest.close();
  });

  it("refuses a guest that somebody else configured", async () => {
    await using fixture = await RelayFixture.create();
    const guest = await StubGuest.start(fixture.ca.caPem);
    guest.configured.push("another-sandbox");
    await assert.rejects(fixture.relay.connectGuest(fixture.spec(guest.port), withDeadline(10_000)), {
      code: "already_exists",
      message: /configured by somebody else/,
    });
    await guest.close();
  });

  it("gives up on a guest that trusts another CA, and says so", async () => {
    await using fixture = await RelayFixture.create();
    const other = await CertificateAuthority.open(join(fixture.dir, "other"));
    const guest = await StubGuest.start(other.caPem);
    await assert.rejects(fixture.relay.connectGuest(fixture.spec(guest.port), withDeadline(10_000)), {
      code: "permission_denied",
      message: /another CA/,
    });
    await guest.close();
  });

  it("names where it dialled when nothing answers until the deadline", async () => {
    await using fixture = await RelayFixture.create();
    const closed = createServer().listen(0, "127.0.0.1");
    await once(closed, "listening");
    const { port } = closed.address() as AddressInfo;
    closed.close();
    await assert.rejects(fixture.relay.connectGuest(fixture.spec(port), withDeadline(400)), (e: Fault) => {
      assert.equal(e.code, "unavailable");
      assert.match(e.message, new RegExp(`127\\.0\\.0\\.1 port ${port}`));
      assert.match(String((e.cause as Error).message), /ECONNREFUSED/);
      return true;
    });
  });
});

describe("a guest connection that breaks", () => {
  it("repeats a pending call once the path is back, under the same key", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture);
    const agent = fixture.relay.guest(fixture.sandboxId);
    const waiting = agent.call(AGENT, "WaitProcess", NOTHING);
    waiting.catch(() => undefined);
    for (let cut = 1; cut <= 3; cut++) {
      while (peer.guest.seen.get("WaitProcess") !== cut) await new Promise((r) => setTimeout(r, 5));
      peer.proxy.cut();
    }
    await agent.call(AGENT, "StartContainer", NOTHING);
    while (peer.guest.seen.get("WaitProcess") !== 4) await new Promise((r) => setTimeout(r, 5));
    assert.equal(peer.guest.done.get("WaitProcess"), 1);
    assert.equal(peer.guest.done.get("StartContainer"), 1);
  });

  it("is noticed when the path only goes silent", async () => {
    await using fixture = await RelayFixture.create({ keepAliveMs: 100 });
    await using peer = await connected(fixture);
    peer.proxy.freeze(true);
    const call = fixture.relay.guest(fixture.sandboxId).call(AGENT, "StartContainer", NOTHING);
    while (peer.proxy.connections < 2) await new Promise((r) => setTimeout(r, 20)); // it dials again
    peer.proxy.freeze(false);
    await call;
    assert.equal(peer.guest.done.get("StartContainer"), 1);
  });

  it("is lost when it stays away too long: calls fail, the reason is told", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture, { lostAfterMs: 600 });
    const agent = fixture.relay.guest(fixture.sandboxId);
    const waiting = agent.call(AGENT, "WaitProcess", NOTHING);
    await peer.guest.close();
    await assert.rejects(waiting, { code: "unavailable", retryable: false, message: /pod VM is gone/ });
    assert.match((await fixture.relay.guestLost(fixture.sandboxId)).reason, /no connection to the pod VM for 1 s/);
    await assert.rejects(agent.call(AGENT, "StartContainer", NOTHING), { code: "unavailable" });
  });

  it("fails at once what is pending when the VM is known to be gone", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture);
    const waiting = fixture.relay.guest(fixture.sandboxId).call(AGENT, "WaitProcess", NOTHING);
    fixture.relay.declareLost(fixture.sandboxId, "instance terminated");
    await assert.rejects(waiting, { code: "unavailable", message: /instance terminated/ });
    assert.deepEqual(await fixture.relay.guestLost(fixture.sandboxId), { reason: "instance terminated" });
    assert.ok(peer.guest.configured.length > 0);
  });

  it("does not talk to another guest that took over the address, even one that the CA signed", async () => {
    await using fixture = await RelayFixture.create();
    const first = await StubGuest.start(fixture.ca.caPem);
    const second = await StubGuest.start(fixture.ca.caPem);
    let target = first.port;
    const proxy = await TcpProxy.open(() => target);
    await fixture.relay.connectGuest(fixture.spec(proxy.port, { lostAfterMs: 800 }), withDeadline(10_000));
    // The impostor even has a certificate for the same sandbox.
    const impostor = await RelayFixture.create();
    await impostor.relay.connectGuest(
      { ...fixture.spec(second.port), identity: fixture.identity },
      withDeadline(10_000),
    );
    target = second.port;
    proxy.cut();
    const call = fixture.relay.guest(fixture.sandboxId).call(AGENT, "StartContainer", NOTHING);
    await assert.rejects(call, { code: "unavailable", message: /another key/ });
    assert.equal(second.done.get("StartContainer"), undefined);
    await impostor[Symbol.asyncDispose]();
    await fixture.relay[Symbol.asyncDispose]();
    await proxy.close();
    await first.close();
    await second.close();
  });

  it("lets a caller's deadline and signal end a call while it is away", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture);
    await peer.guest.close();
    const agent = fixture.relay.guest(fixture.sandboxId);
    await assert.rejects(agent.call(AGENT, "StartContainer", NOTHING, { timeoutMs: 200 }), (e: { code: unknown }) => {
      assert.ok(e.code === 4 || e.code === "deadline_exceeded", String(e));
      return true;
    });
    const stop = new AbortController();
    const call = agent.call(AGENT, "StartContainer", NOTHING, { signal: stop.signal });
    stop.abort(new Fault("cancelled", "enough"));
    await assert.rejects(call, { code: "cancelled" });
  });
});

describe("closing a relay", () => {
  it("fails what is pending and forgets the guest", async () => {
    await using fixture = await RelayFixture.create();
    await using peer = await connected(fixture);
    const waiting = fixture.relay.guest(fixture.sandboxId).call(AGENT, "WaitProcess", NOTHING);
    await fixture.relay.disconnectGuest(fixture.sandboxId);
    await assert.rejects(waiting, { code: "unavailable" });
    assert.throws(() => fixture.relay.guest(fixture.sandboxId), { code: "not_found" });
    await assert.rejects(fixture.relay.sendTree(fixture.sandboxId, { treeId: "x", path: fixture.dir }, background()), {
      code: "not_found",
    });
    assert.equal(peer.guest.trees.size, 0);
  });
});
