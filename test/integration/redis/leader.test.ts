import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type LoopStatus, Loops } from "../../../src/adaptor/reconcile/index.ts";
import type { RedisStore } from "../../../src/adaptor/store/redis/index.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { until } from "../../e2e/harness/processes.ts";
import { AdaptorUnderTest } from "../../fakes/adaptor-under-test.ts";
import { RedisServer, withoutRedis } from "../../support/redis-server.ts";
import { openRedisStore } from "../../support/redis-store.ts";

describe("the lead in a reconcile loop", { timeout: 120_000, skip: withoutRedis() }, () => {
  it("is one adaptor's, kept by asking, and taken over with a higher token when it is not", async () => {
    await using redis = await RedisServer.start();
    const open = (name: string): Promise<RedisStore> => openRedisStore({ url: redis.url, dir: join(redis.dir, name) });
    await using one = await open("one");
    await using two = await open("two");
    const first = await one.facts.lead("loop:a", 300);
    assert.equal(first, 1);
    assert.equal(await two.facts.lead("loop:a", 300), undefined);
    assert.equal(await two.facts.lead("loop:b", 300), 1, "another loop may have another leader");
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(await one.facts.lead("loop:a", 300), first);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(await two.facts.lead("loop:a", 300), undefined, "it was asked for again");
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(await two.facts.lead("loop:a", 300), 2);
    assert.equal(await one.facts.lead("loop:a", 300), undefined, "the first one is fenced off");
  });

  it("is kept while its loop pauses for long, and is another's soon after its adaptor was killed", async () => {
    await using redis = await RedisServer.start();
    const open = (name: string): Promise<RedisStore> => openRedisStore({ url: redis.url, dir: join(redis.dir, name) });
    await using one = await open("one");
    await using two = await open("two");
    const loopsOn = (facts: RedisStore["facts"]): { loops: Loops; passes: () => number } => {
      let passes = 0;
      const loops = new Loops({ facts, log: silentLogger(), now: () => new Date() });
      const reconcile = async () => {
        passes++;
        return { examined: 0, repaired: 0 };
      };
      loops.start([{ name: "seldom", intervalMs: 3_600_000, reconcile }]);
      return { loops, passes: () => passes };
    };
    let dead = false;
    // Killed: it neither keeps its lead nor gives it back.
    const facts = {
      lead: (...asked: Parameters<RedisStore["facts"]["lead"]>) =>
        dead ? new Promise<never>(() => undefined) : one.facts.lead(...asked),
    };
    const first = loopsOn(facts as RedisStore["facts"]);
    await until("the first to lead", 5_000, () => first.passes() === 1);
    const second = loopsOn(two.facts);
    await new Promise((resolve) => setTimeout(resolve, 20_000));
    assert.equal(second.passes(), 0, "longer than a lead lasts that nobody keeps");
    dead = true;
    await until("the second to lead", 25_000, () => second.passes() === 1);
    await second.loops[Symbol.asyncDispose]();
    await first.loops[Symbol.asyncDispose]();
  });

  it("goes to another adaptor when the one that had it ends", async () => {
    await using redis = await RedisServer.start();
    const root = await mkdtemp(join(tmpdir(), "leaders-"));
    const config = { store: { kind: "redis", url: redis.url, leaseMs: 3_000 } };
    const open = async (name: string) => {
      const dir = join(root, name);
      await mkdir(dir);
      if (name !== "one") await cp(join(root, "one", "ca"), join(dir, "ca"), { recursive: true });
      return AdaptorUnderTest.open({ dir, config, cloud: join(root, "cloud") });
    };
    const leads = async (tested: AdaptorUnderTest) => {
      const { loops } = await tested.json<{ loops: LoopStatus[] }>("/v1/reconcile");
      return loops.filter((l) => l.leads).map((l) => l.name);
    };
    try {
      const one = await open("one");
      await using two = await open("two");
      await two.until(async () => (await leads(one)).length >= 5, "the first one leads");
      await new Promise((resolve) => setTimeout(resolve, 300));
      const [a, b] = [await leads(one), await leads(two)];
      assert.deepEqual(
        a.filter((name) => b.includes(name)),
        [],
      );
      await one[Symbol.asyncDispose]();
      await two.until(async () => (await leads(two)).length === a.length + b.length, "the second one has all", 30_000);
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
});
