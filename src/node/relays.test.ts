import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { StubGuest } from "../../test/support/stub-guest.ts";
import { background, withDeadline } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { race, sleep } from "../base/retry.ts";
import { silentLogger } from "../base/silent-log.ts";
import { VERSION } from "../base/version.ts";
import { HealthCheckResponse, HealthDefinition } from "../gen/agent/health.ts";
import { RelayClient, RelayServer, type TaskReply } from "../relay/index.ts";
import { TtrpcClient, type UnaryCaller } from "../ttrpc/index.ts";
import { Relays } from "./relays.ts";

const log = silentLogger();
const fine: TaskReply = { ok: true, payload: Buffer.from("fine") };

async function relayServer(dir: string, version: string) {
  const ended = deferred<void>();
  const server = await RelayServer.open({
    ...{ dir, log, version, keepAliveMs: 60_000, keepAliveDeadlineMs: 1000 },
    ...{ onAttached: () => undefined, onDetached: () => undefined, onRestart: () => undefined },
    onEnd: () => ended.resolve(),
  });
  return { server, ended: ended.promise, client: () => RelayClient.connect(dir, { log }, background()) };
}

/** A relay of the version before, with a pod and an open door, and the daemon that comes after the upgrade. */
async function upgraded() {
  const [old, next] = [await RelayFixture.create(), await RelayFixture.create()];
  const guests = [await StubGuest.start(old.ca.caPem), await StubGuest.start(next.ca.caPem)] as const;
  const before = await relayServer(join(old.dir, "r"), "0.0.1");
  const after = await relayServer(join(next.dir, "r"), VERSION);
  const door = { door: "d", socketPath: join(old.dir, "d.sock") };

  const former = await before.client();
  await former.onTaskRequest(async () => fine);
  await former.connectGuest(old.spec(guests[0].port), background());
  await former.openDoor(door);
  const containerd = new TtrpcClient(connect(door.socketPath));
  await containerd.call("t", "State", Buffer.alloc(0));
  await former.handOver();

  const found = [await before.client()];
  const relays = await Relays.open({ log, found, start: () => after.client(), restart: [], drainMs: 50 }, background());
  await relays.held(background());
  await relays.onTaskRequest(async () => fine);
  await relays.openDoor(door);
  return {
    ...{ old, next, guests, before, after, door, containerd, relays },
    [Symbol.asyncDispose]: async () => {
      containerd.close();
      await relays.handOver();
      for (const relay of [before, after]) await relay.server[Symbol.asyncDispose]();
      for (const guest of guests) await guest.close();
      for (const fixture of [old, next]) await fixture[Symbol.asyncDispose]();
    },
  };
}

async function health(guest: UnaryCaller): Promise<number> {
  return HealthCheckResponse.decode(await guest.call(HealthDefinition.fullName, "Check", new Uint8Array())).status;
}

describe("relay processes of two versions", () => {
  it("serve side by side: the older one its pods, the newer one what comes", async () => {
    await using w = await upgraded();
    await w.relays.connectGuest(w.next.spec(w.guests[1].port), background());
    assert.deepEqual([w.before.server.guestCount, w.after.server.guestCount], [1, 1]);
    assert.equal(await health(w.relays.guest(w.old.sandboxId)), 1);
    assert.equal(await health(w.relays.guest(w.next.sandboxId)), 1);
  });

  it("both take Task calls: the older one on connections that it has, the newer one on the next", async () => {
    await using w = await upgraded();
    assert.equal(Buffer.from(await w.containerd.call("t", "State", Buffer.alloc(0))).toString(), "fine");
    const second = new TtrpcClient(connect(w.door.socketPath));
    await w.before.server[Symbol.asyncDispose]();
    assert.equal(Buffer.from(await second.call("t", "State", Buffer.alloc(0))).toString(), "fine");
    second.close();
  });

  it("the older one ends when its last pod is gone", async () => {
    await using w = await upgraded();
    await w.relays.disconnectGuest(w.old.sandboxId);
    await race(w.before.ended, withDeadline(5_000));
    await w.relays.connectGuest(w.next.spec(w.guests[1].port), background());
    assert.equal(await health(w.relays.guest(w.next.sandboxId)), 1);
  });
});

describe("a relay process that dies", () => {
  it("leaves no socket that nobody listens on: starts wait for the next one", async () => {
    const fixture = await RelayFixture.create();
    const first = await relayServer(join(fixture.dir, "1"), VERSION);
    const second = await relayServer(join(fixture.dir, "2"), VERSION);
    const mayStart = deferred<void>();
    const start = async (): Promise<RelayClient> => {
      await mayStart.promise;
      return second.client();
    };
    const relays = await Relays.open({ log, found: [await first.client()], start, restart: [] }, background());
    try {
      await relays.onTaskRequest(async () => fine);
      const door = { door: "d", socketPath: join(fixture.dir, "d.sock") };
      await relays.openDoor(door);
      // As SIGKILL leaves it: the connections end, what lies there stays. (A server that closes removes its own only.)
      await writeFile(`${door.socketPath}.kept`, "");
      await rename(`${door.socketPath}.kept`, door.socketPath);
      await first.server[Symbol.asyncDispose]();
      await untilGone(door.socketPath);
      mayStart.resolve();
      await relays.openDoor(door);
      const containerd = new TtrpcClient(connect(door.socketPath));
      assert.equal(Buffer.from(await containerd.call("t", "State", Buffer.alloc(0))).toString(), "fine");
      containerd.close();
    } finally {
      await relays.handOver();
      for (const relay of [first, second]) await relay.server[Symbol.asyncDispose]();
      await fixture[Symbol.asyncDispose]();
    }
  });
});

async function untilGone(path: string): Promise<void> {
  const call = withDeadline(5_000);
  while (existsSync(path)) await sleep(10, call);
}
