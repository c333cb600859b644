import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freePort, RedisServer, withoutRedis } from "../../../../test/support/redis-server.ts";
import { redisTarget } from "../../../../test/support/redis-store.ts";
import { TcpProxy } from "../../../../test/support/tcp-proxy.ts";
import { withDeadline } from "../../../base/call.ts";
import { newOperationId } from "../../../base/ids.ts";
import { race, sleep } from "../../../base/retry.ts";
import type { OperationRecord } from "../../store/index.ts";
import { OperationJobs } from "./operation-jobs.ts";
import { OperationWorker } from "./operation-worker.ts";

const PATIENCE_MS = 30_000;

describe("a worker of jobs in Redis", { skip: withoutRedis(), timeout: 120_000 }, () => {
  it("takes jobs though Redis was away while it made its connection", async () => {
    const [alive, dead] = [await freePort(), await freePort()];
    await using closing = new AsyncDisposableStack();
    closing.use(await RedisServer.start(["--port", String(alive)]));
    let port = alive;
    const proxy = await TcpProxy.open(() => port);
    closing.defer(() => proxy.close());
    const target = await redisTarget({ url: `redis://127.0.0.1:${proxy.port}` });
    const [producer, consumer] = [target.client("bounded"), target.client("patient")];
    for (const client of [producer, consumer]) {
      client.on("error", () => undefined); // what the commands say is looked at
      closing.defer(() => client.disconnect());
      await client.connect();
    }

    port = dead; // what is connected stays so, the worker's own connection fails
    const taken: string[] = [];
    const second = Promise.withResolvers<void>();
    const errors: string[] = [];
    const worker = new OperationWorker({
      kind: "start-vm",
      options: { connection: consumer, prefix: "{test}", autorun: false },
      work: async (job) => {
        if (taken.push(job.data.operation) === 2) second.resolve();
      },
      onError: (e) => errors.push(e.message),
    });
    const running = worker.run();
    closing.defer(async () => {
      await worker.close();
      await running;
    });
    const call = withDeadline(PATIENCE_MS);
    while (errors.length === 0) await sleep(20, call);
    port = alive;

    const jobs = new OperationJobs("start-vm", { connection: producer, prefix: "{test}" }, () => undefined);
    closing.defer(() => jobs.close());
    await jobs.add(operation());
    while (taken.length === 0) await sleep(20, call);
    await sleep(500, call); // it waits for the next one on its own connection
    await jobs.add(operation());
    await race(second.promise, call);
    assert.equal(new Set(taken).size, 2);
  });

  it("ends while Redis is away and it has never been ready", async () => {
    const proxy = await TcpProxy.open(() => 1);
    const target = await redisTarget({ url: `redis://127.0.0.1:${proxy.port}` });
    const consumer = target.client("patient");
    consumer.on("error", () => undefined); // it has to fail
    const errors: string[] = [];
    const worker = new OperationWorker({
      kind: "start-vm",
      options: { connection: consumer, prefix: "{test}", autorun: false },
      work: () => Promise.reject(new Error("there is no job")),
      onError: (e) => errors.push(e.message),
    });
    const running = worker.run();
    const call = withDeadline(PATIENCE_MS);
    while (errors.length === 0) await sleep(20, call);
    worker.pause();
    await race(worker.close(), call);
    worker.disconnect();
    consumer.disconnect();
    await race(running, call);
    while (proxy.connections > 0) await sleep(20, call);
    await proxy.close();
  });
});

function operation(): OperationRecord {
  return {
    ...{ id: newOperationId(), kind: "start-vm", subject: "s", input: {}, priority: 1 },
    ...{ state: "queued", attempt: 0, lease: 0, wakeAt: 0, submittedAt: new Date().toISOString() },
  };
}
