import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { BullmqQueue } from "../../../src/adaptor/operation/bullmq/index.ts";
import { queueConformance } from "../../conformance/queue.ts";
import { storeConformance } from "../../conformance/store.ts";
import { RedisCluster } from "../../support/redis-cluster.ts";
import { withoutRedis } from "../../support/redis-server.ts";
import { openRedisStore, redisTarget } from "../../support/redis-store.ts";

// A command whose keys are of two slots fails in a cluster, and a key may be at either node: both suites hold as ever.
const skip = withoutRedis();
describe("redis cluster", { skip, timeout: 240_000 }, () => {
  let cluster: RedisCluster;
  let dir: string;
  let number = 0;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "cluster-"));
    cluster = await RedisCluster.start();
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  const config = () => ({ cluster: { nodes: [...cluster.nodes] } });

  storeConformance("redis cluster", async () => {
    const prefix = `{s${number++}}`;
    const open = () => openRedisStore({ config: config(), dir: join(dir, prefix), deps: { prefix } });
    let store = await open();
    const reopen = async () => {
      await store[Symbol.asyncDispose]();
      store = await open();
    };
    return {
      get store() {
        return store;
      },
      reopen,
      crash: reopen, // how a store is left behind is not the cluster's matter
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    };
  });

  queueConformance("bullmq on a cluster", async () => {
    const prefix = `{q${number++}}`;
    const target = await redisTarget(config());
    const store = await openRedisStore({ config: config(), dir: join(dir, prefix), deps: { prefix } });
    return {
      store,
      createQueue: (deps) => new BullmqQueue({ ...deps, target, prefix: `${prefix}:queue`, sweepMs: 200 }),
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    };
  });
});
