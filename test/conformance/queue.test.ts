import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BullmqQueue } from "../../src/adaptor/operation/bullmq/index.ts";
import { EmbeddedQueue } from "../../src/adaptor/operation/index.ts";
import { SqliteStore } from "../../src/adaptor/store/index.ts";
import { RedisServer, withoutRedis } from "../support/redis-server.ts";
import { openRedisStore, redisTarget } from "../support/redis-store.ts";
import { queueConformance } from "./queue.ts";

queueConformance("embedded", async () => {
  const dir = await mkdtemp(join(tmpdir(), "queue-"));
  const store = await SqliteStore.open(join(dir, "store.sqlite"));
  return {
    store,
    createQueue: (deps) => new EmbeddedQueue(deps),
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    },
  };
});

queueConformance(
  "bullmq",
  async () => {
    const redis = await RedisServer.start();
    const store = await openRedisStore({ url: redis.url, dir: join(redis.dir, "adaptor") });
    const target = await redisTarget({ url: redis.url });
    return {
      store,
      createQueue: (deps) => new BullmqQueue({ ...deps, target, prefix: "{test}:queue", sweepMs: 200 }),
      async [Symbol.asyncDispose]() {
        await store[Symbol.asyncDispose]();
        await redis[Symbol.asyncDispose]();
      },
    };
  },
  withoutRedis(),
);
