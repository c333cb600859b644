import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { AdaptorUnderTest } from "../fakes/adaptor-under-test.ts";
import { RedisServer, withoutRedis } from "../support/redis-server.ts";
import { sessionConformance } from "./sessions.ts";

const FILES = ["store.sqlite", "store.sqlite-wal"];

sessionConformance("embedded", async (config) => {
  const tested = await AdaptorUnderTest.open({ config });
  const remove = () => Promise.all(FILES.map((name) => rm(join(tested.dir, name), { force: true })));
  return {
    tested,
    lose: () => tested.restart(async () => void (await remove())),
    loseWhileItRuns: () => tested.restart(async () => void (await remove())), // the file is locked: only so
    backup: () => tested.restart(() => cp(join(tested.dir, "store.sqlite"), join(tested.dir, "backup.sqlite"))),
    restore: () =>
      tested.restart(async () => {
        await remove();
        await cp(join(tested.dir, "backup.sqlite"), join(tested.dir, "store.sqlite"));
      }),
    [Symbol.asyncDispose]: () => tested[Symbol.asyncDispose](),
  };
});

sessionConformance(
  "redis",
  async (config) => {
    const redis = await RedisServer.start();
    const store = { kind: "redis", url: redis.url, leaseMs: 3_000 };
    const tested = await AdaptorUnderTest.open({ config: { ...config, store } });
    const [data, copy] = [join(redis.dir, "appendonlydir"), join(redis.dir, "backup")];
    const meanwhile = (change: () => Promise<void>) =>
      tested.restart(async () => {
        await redis.kill();
        await change();
        await redis.restart();
      });
    return {
      tested,
      lose: () => meanwhile(() => rm(data, { recursive: true })),
      async loseWhileItRuns() {
        const client = redis.client();
        await client.flushall();
        client.disconnect();
      },
      backup: () => meanwhile(() => cp(data, copy, { recursive: true })),
      restore: () =>
        meanwhile(async () => {
          await rm(data, { recursive: true });
          await cp(copy, data, { recursive: true });
        }),
      async [Symbol.asyncDispose]() {
        await tested[Symbol.asyncDispose]();
        await redis[Symbol.asyncDispose]();
      },
    };
  },
  withoutRedis(),
);
