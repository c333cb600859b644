import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RedisServer, withoutRedis } from "../../../../test/support/redis-server.ts";
import { redisTarget } from "../../../../test/support/redis-store.ts";
import { newOperationId } from "../../../base/ids.ts";
import type { OperationRecord } from "../../store/index.ts";
import { OperationJobs } from "./operation-jobs.ts";

describe("jobs in Redis", { skip: withoutRedis(), timeout: 30_000 }, () => {
  it("are made again after Redis went away while the queue was being opened", async () => {
    await using redis = await RedisServer.start();
    const target = await redisTarget({ url: redis.url, timeoutMs: 500 });
    const client = target.client("bounded");
    await using closing = new AsyncDisposableStack();
    closing.defer(() => client.disconnect());
    client.on("error", () => undefined); // what the commands say is looked at
    await client.connect();
    redis.pause(); // the queue's first question gets no answer
    const jobs = new OperationJobs("start-vm", { connection: client, prefix: "{test}" }, () => undefined);
    const operation: OperationRecord = {
      ...{ id: newOperationId(), kind: "start-vm", subject: "s", input: {}, priority: 1 },
      ...{ state: "queued", attempt: 0, lease: 0, wakeAt: 0, submittedAt: new Date().toISOString() },
    };
    await assert.rejects(jobs.add(operation), /timed out/i);
    redis.resume();
    const end = Date.now() + 10_000;
    for (;;) {
      const failure = await jobs.add(operation).then(
        () => undefined,
        (e: unknown) => e,
      );
      if (failure === undefined) break;
      if (Date.now() > end) throw failure;
    }
    assert.equal(await jobs.addMissing([operation]), 0, "it has its job");
    await jobs.close();
  });
});
