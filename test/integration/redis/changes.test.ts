import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { newOperationId } from "../../../src/base/ids.ts";
import { until } from "../../e2e/harness/processes.ts";
import { freePort, RedisServer, withoutRedis } from "../../support/redis-server.ts";
import { openRedisStore } from "../../support/redis-store.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";

describe("changes that another adaptor makes", { skip: withoutRedis(), timeout: 60_000 }, () => {
  it("are told of late when redis could not be reached, a failed attempt of an operation too", async () => {
    const reachable = await freePort();
    await using redis = await RedisServer.start(["--port", String(reachable)]);
    const nowhere = await freePort();
    let port = reachable;
    const proxy = await TcpProxy.open(() => port);
    try {
      await using far = await openRedisStore({ url: `redis://127.0.0.1:${proxy.port}`, dir: join(redis.dir, "far") });
      await using near = await openRedisStore({ url: redis.url, dir: join(redis.dir, "near") });
      const told: string[] = [];
      far.operations.watch(({ subject, state, fault }) => told.push(`${subject} ${state} ${fault?.message}`));
      const fail = async (subject: string): Promise<void> => {
        const { id } = await near.operations.submit({
          id: newOperationId(),
          kind: "start-vm",
          subject,
          input: {},
          priority: 5,
        });
        const fault = { code: "unavailable", message: `no room for ${subject}`, at: new Date().toISOString() };
        const lease = (await near.operations.begin(id))?.lease ?? 0;
        await near.operations.settle(id, lease, { state: "queued", wakeAt: Date.now() + 60_000, fault });
      };
      await fail("one");
      await until("the first is told", 5_000, () => told.length === 1);
      port = nowhere;
      proxy.cut();
      await fail("two");
      assert.deepEqual(told, ["one queued no room for one"]);
      port = reachable;
      await until("the second is told", 15_000, () => told.includes("two queued no room for two"));
    } finally {
      await proxy.close();
    }
  });
});
