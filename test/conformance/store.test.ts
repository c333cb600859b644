import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SqliteStore } from "../../src/adaptor/store/index.ts";
import { RedisServer, withoutRedis } from "../support/redis-server.ts";
import { openRedisStore } from "../support/redis-store.ts";
import { type StoreUnderTest, storeConformance } from "./store.ts";

storeConformance("embedded", async () => {
  const root = await mkdtemp(join(tmpdir(), "store-"));
  let dir = join(root, "0");
  let store = await SqliteStore.open(join(dir, "store.sqlite"));
  const tested: StoreUnderTest = {
    get store() {
      return store;
    },
    async reopen() {
      await store[Symbol.asyncDispose]();
      store = await SqliteStore.open(join(dir, "store.sqlite"));
    },
    async crash() {
      // What is on disk at this instant, without what closing would do.
      const copy = `${dir}0`;
      await cp(dir, copy, { recursive: true });
      await store[Symbol.asyncDispose]();
      dir = copy;
      store = await SqliteStore.open(join(dir, "store.sqlite"));
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await rm(root, { recursive: true });
    },
  };
  return tested;
});

storeConformance(
  "redis",
  async () => {
    const redis = await RedisServer.start();
    let dir = join(redis.dir, "0");
    let store = await openRedisStore({ url: redis.url, dir });
    return {
      get store() {
        return store;
      },
      async reopen() {
        await store[Symbol.asyncDispose]();
        store = await openRedisStore({ url: redis.url, dir });
      },
      async crash() {
        await redis.kill();
        const copy = `${dir}0`;
        await cp(dir, copy, { recursive: true });
        await store[Symbol.asyncDispose]();
        dir = copy;
        await redis.restart();
        store = await openRedisStore({ url: redis.url, dir });
      },
      async [Symbol.asyncDispose]() {
        await store[Symbol.asyncDispose]();
        await redis[Symbol.asyncDispose]();
      },
    };
  },
  withoutRedis(),
);
