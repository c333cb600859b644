import assert from "node:assert/strict";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { StartVmEvent_Stage as Stage } from "../../../src/gen/kataremote/podvm/v1/podvm.ts";
import { AdaptorUnderTest, call } from "../../fakes/adaptor-under-test.ts";
import { RedisServer, withoutRedis } from "../../support/redis-server.ts";
import { openRedisStore } from "../../support/redis-store.ts";

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** Longer than a worker of BullMQ blocks (5 s) with its watchdog (1 s): bullmq#4585 hung for ever after that. */
const OUTAGE_MS = 8_000;

describe("redis goes away", { timeout: 240_000, skip: withoutRedis() }, () => {
  let redis: RedisServer;
  let tested: AdaptorUnderTest;
  beforeEach(async () => {
    redis = await RedisServer.start();
    tested = await open();
  });
  afterEach(async () => {
    redis.resume();
    await tested[Symbol.asyncDispose]();
    await redis[Symbol.asyncDispose]();
  });
  const open = (dir?: string) =>
    AdaptorUnderTest.open({
      config: { store: { kind: "redis", url: redis.url, timeoutMs: 500, leaseMs: 3_000 } },
      ...(dir === undefined ? {} : { dir }),
    });
  const started = async () => {
    const id = await tested.createVm();
    return { id, stage: (await tested.startVm(id)).at(-1)?.stage };
  };

  for (const [how, away, back] of [
    ["is killed and started again", () => redis.kill(), () => redis.restart()],
    ["hangs and goes on", async () => redis.pause(), async () => redis.resume()],
  ] as const) {
    it(`${how}: calls fail in time, running VMs stay, and everything goes on`, async () => {
      const before = await started();
      const instances = await tested.instances();
      tested.provider.knobs.createLatencyMs = 300;
      const midway = await tested.createVm();
      const starting = tested.startVm(midway).catch((e: { code: string }) => e.code);
      await tested.until(async () => (await tested.phase(midway)) === "creating", "a start is under way");
      await away();
      const asked = performance.now();
      await assert.rejects(tested.createVm(), { code: "unavailable", message: /store \(unix:.*does not answer/ });
      assert.ok(performance.now() - asked < 3_000, "a call is not held for ever");
      await sleep(OUTAGE_MS);
      await back();
      tested.provider.knobs.createLatencyMs = 0;
      await tested.until(async () => (await tested.phase(midway).catch(() => "")) === "booting", "it is finished");
      await starting;
      assert.deepEqual(
        (await tested.instances()).filter((i) => instances.includes(i)),
        instances,
      );
      assert.equal((await tested.instances()).length, 2);
      // The queue's workers block on Redis when there is nothing to do: they must have come back too.
      for (let round = 0; round < 3; round++) assert.equal((await started()).stage, Stage.ADDRESS);
      await tested.client.stopVm({ sandboxId: before.id }, call());
      await tested.until(async () => (await tested.phase(before.id)) === "gone", "stops are carried out");
    });
  }

  it("for longer than leases last: nobody's work is taken from them when it comes back", async () => {
    tested.provider.knobs.createLatencyMs = 6_000;
    const id = await tested.createVm();
    const starting = tested.startVm(id);
    // The record says "creating" before anybody has begun to work on it.
    await tested.until(async () => tested.provider.createCalls === 1, "the cloud is asked");
    redis.pause();
    await sleep(4_000);
    redis.resume();
    assert.equal((await starting).at(-1)?.stage, Stage.ADDRESS);
    const { operations } = await tested.json<{ operations: { attempt: number }[] }>("/v1/operations");
    assert.deepEqual(
      operations.map((o) => o.attempt),
      [1],
    );
  });

  it("while the adaptor closes: that does not hang", async () => {
    await started();
    redis.pause();
    const asked = performance.now();
    await tested.restart(async () => redis.resume());
    assert.ok(performance.now() - asked < 15_000);
    assert.equal((await started()).stage, Stage.ADDRESS);
  });

  it("before the adaptor starts: it says where it looked, and no password", async () => {
    await redis.kill();
    const opening = openRedisStore({
      config: { url: redis.url.replace("unix://", "unix://someone:secret@x"), timeoutMs: 300 },
      dir: join(tested.dir, "late"),
    });
    await assert.rejects(opening, (e: { code: string; message: string }) => {
      assert.equal(e.code, "unavailable");
      assert.match(e.message, /redis\.sock/);
      assert.doesNotMatch(e.message, /secret/);
      return true;
    });
    await redis.restart();
  });

  describe("and comes back with other data", () => {
    const wipe = () => rm(join(redis.dir, "appendonlydir"), { recursive: true });

    for (const when of ["while the adaptor runs", "while the adaptor is down"] as const) {
      const meanwhile = async (change: () => Promise<void>) => {
        const work = async () => {
          await redis.kill();
          await change();
          await redis.restart();
        };
        if (when === "while the adaptor is down") await tested.restart(work);
        else await work();
      };

      it(`empty, ${when}: no VM is deleted, no sandbox is called lost`, async () => {
        const { id } = await started();
        const instances = await tested.instances();
        const { createdAt: since } = (await openedEpoch(redis, tested)) ?? {};
        await meanwhile(wipe);
        const sync = async () => {
          const report = { nodeId: tested.nodeId, bootId: "b", liveSandboxIds: [id] };
          return tested.client.syncNode(report, call()).catch(() => undefined);
        };
        const answer = await tested.until(sync, "the node can report");
        assert.deepEqual([answer.lostSandboxIds, answer.stoppingSandboxIds], [[], []]);
        await sleep(500); // several passes of every loop
        assert.deepEqual(await tested.instances(), instances);
        const epoch = await openedEpoch(redis, tested);
        assert.ok(since !== undefined && epoch !== undefined && epoch.createdAt > since, "a new epoch has begun");
        assert.equal((await started()).stage, Stage.ADDRESS, "and new pods start");
      });

      it(`older, ${when}: what it does not know any more is kept`, async () => {
        const { id: known } = await started();
        await tested.restart(async () => {
          // A backup: what a restore brings back later.
          await redis.kill();
          await cp(join(redis.dir, "appendonlydir"), join(redis.dir, "backup"), { recursive: true });
          await redis.restart();
        });
        const { id: forgotten } = await started();
        const instances = await tested.instances();
        assert.equal(instances.length, 2);
        await sleep(1_200); // the mark of what was seen is written within a second
        const before = await openedEpoch(redis, tested);
        await meanwhile(async () => {
          await wipe();
          await cp(join(redis.dir, "backup"), join(redis.dir, "appendonlydir"), { recursive: true });
        });
        const report = { nodeId: tested.nodeId, bootId: "b", liveSandboxIds: [known, forgotten] };
        const answer = await tested.until(
          () => tested.client.syncNode(report, call()).catch(() => undefined),
          "the node can report",
        );
        assert.deepEqual([answer.lostSandboxIds, answer.stoppingSandboxIds], [[], []]);
        await sleep(500);
        assert.deepEqual(await tested.instances(), instances);
        const after = await openedEpoch(redis, tested);
        assert.notEqual(after?.id, before?.id);
        assert.equal(await tested.phase(known), "booting");
        await tested.client.stopVm({ sandboxId: known }, call());
        await tested.until(async () => (await tested.instances()).length === 1, "what it knows is still worked on");
      });
    }
  });
});

/** The epoch as Redis has it. */
async function openedEpoch(redis: RedisServer, { config }: AdaptorUnderTest) {
  const client = redis.client();
  const [id, createdAt] = await client.hmget(`{kata-remote:${config.cluster}}:meta`, "epoch", "epochCreatedAt");
  client.disconnect();
  return typeof id === "string" && typeof createdAt === "string" ? { id, createdAt } : undefined;
}
