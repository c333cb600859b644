import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { LoopStatus } from "../../../src/adaptor/reconcile/index.ts";
import type { RedisStore } from "../../../src/adaptor/store/redis/index.ts";
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
