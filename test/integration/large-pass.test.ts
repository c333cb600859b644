import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { describe, it } from "node:test";
import type { LoopStatus } from "../../src/adaptor/reconcile/index.ts";
import { type AdaptorStore, type SandboxRecord, SqliteStore } from "../../src/adaptor/store/index.ts";
import { type InstanceId, newOperationId, newSandboxId } from "../../src/base/ids.ts";
import type { Instance } from "../../src/provider/index.ts";
import { AdaptorUnderTest } from "../fakes/adaptor-under-test.ts";
import { RedisServer, withoutRedis } from "../support/redis-server.ts";
import { openRedisStore } from "../support/redis-store.ts";

const SANDBOXES = 10_000;
const STARTS = 60;

/** Records of 500 nodes as they are in a cluster that runs, with their instances. */
async function fill(store: AdaptorStore): Promise<Instance[]> {
  const instances: Instance[] = [];
  const created = new Date().toISOString();
  for (let i = 0; i < SANDBOXES; i += 500) {
    const made: Promise<SandboxRecord>[] = [];
    for (let k = i; k < i + 500; k++) {
      const createOperation = newOperationId();
      const id = `zero-${k}` as InstanceId;
      const name = `podvm-web-${k}`;
      const tags = { cluster: "test", owner: "kata-remote", createOperation, created } as const;
      instances.push({ id, name, tags, state: "running", addresses: ["192.0.2.1"], createdAt: new Date() });
      made.push(
        store.sandboxes.insert({
          ...{ id: newSandboxId(), phase: "ready", nodeId: `node-${k % 500}`, createdAt: created },
          pod: { namespace: "default", name: `web-${k}`, uid: newSandboxId() },
          containerd: { namespace: "k8s.io", id: newSandboxId() },
          request: { vcpus: 2, memoryMiB: 4096, gpus: 0 },
          intent: { createOperation, name, created },
          instance: { id, addresses: ["192.0.2.1"], port: 15150 },
          guestKey: { fingerprint: "a".repeat(64), verifiedBy: "console" },
        }),
      );
    }
    await Promise.all(made);
  }
  return instances;
}

const percentile = (all: readonly number[], p: number): number =>
  all.toSorted((a, b) => a - b)[Math.min(all.length - 1, Math.floor(all.length * p))] ?? 0;

/** p99 of CreateVM + StartVM with that many sandboxes, reconciled all the time or not at all. */
async function measure(tested: AdaptorUnderTest): Promise<{ p50: number; p99: number; blocked: number }> {
  const times: number[] = [];
  const delay = monitorEventLoopDelay({ resolution: 2 });
  delay.enable();
  for (let i = 0; i < STARTS; i++) {
    const began = performance.now();
    await tested.startVm(await tested.createVm({ name: `new-${i}` }));
    times.push(performance.now() - began);
  }
  delay.disable();
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99), blocked: delay.percentile(99) / 1e6 };
}

function largePass(
  name: string,
  run: (work: (open: Open) => Promise<void>) => Promise<void>,
  skip: string | false = false,
) {
  it(`of ${SANDBOXES} sandboxes does not hold up new pods (${name})`, { skip }, async (t) => {
    await run(async (open) => {
      const results: string[] = [];
      const p99: number[] = [];
      for (const intervalMs of [3_600_000, 50]) {
        await using tested = await open({ intervalMs, lostIntervalMs: intervalMs, orphanGraceMs: 600_000 });
        if (intervalMs > 50)
          await tested.until(async () => (await loops(tested)).every((l) => l.passes > 0), "one pass", 60_000);
        const { p50, p99: high, blocked } = await measure(tested);
        p99.push(high);
        const passes = (await loops(tested)).map((l) => `${l.name} ${l.passes}x ${l.last?.tookMs} ms`).join(", ");
        results.push(
          `every ${intervalMs} ms: p50 ${p50.toFixed(1)} p99 ${high.toFixed(1)} ms, loop delay p99 ${blocked.toFixed(1)} ms (${passes})`,
        );
        const examined = (await loops(tested)).map((l) => l.last?.examined ?? 0);
        assert.ok(Math.max(...examined) >= SANDBOXES, "a pass looks at all of them");
        for (const { last } of await loops(tested)) assert.equal(last?.failure, undefined);
      }
      for (const result of results) t.diagnostic(result);
      const [idle = 0, busy = 0] = p99;
      assert.ok(
        busy < Math.max(10 * idle, 1_500),
        `p99 of a start ${idle.toFixed(1)} ms alone, ${busy.toFixed(1)} ms during passes`,
      );
    });
  });
}

type Open = (reconcile: object) => Promise<AdaptorUnderTest>;

async function loops(tested: AdaptorUnderTest): Promise<LoopStatus[]> {
  return (await tested.json<{ loops: LoopStatus[] }>("/v1/reconcile")).loops;
}

/** Its cloud has the instances of the records, beside those that are made. */
async function opened(dir: string, instances: readonly Instance[], config: object): Promise<AdaptorUnderTest> {
  const tested = await AdaptorUnderTest.open({ dir, config: { limits: { sandboxes: 100_000 }, ...config } });
  const { provider } = tested;
  const { listInstances } = provider;
  provider.listInstances = async (cluster) => [...instances, ...(await listInstances.call(provider, cluster))];
  return tested;
}

describe("a reconcile pass", { timeout: 300_000 }, () => {
  largePass("embedded store", async (work) => {
    const root = await mkdtemp(join(tmpdir(), "large-"));
    try {
      const store = await SqliteStore.open(join(root, "filled", "store.sqlite"));
      const instances = await fill(store);
      await store[Symbol.asyncDispose]();
      let number = 0;
      await work(async (reconcile) => {
        const dir = join(root, String(number++));
        await cp(join(root, "filled"), dir, { recursive: true });
        return opened(dir, instances, { reconcile });
      });
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });

  largePass(
    "Redis",
    async (work) => {
      await using redis = await RedisServer.start();
      const root = await mkdtemp(join(tmpdir(), "large-"));
      try {
        const store = await openRedisStore({
          url: redis.url,
          dir: join(root, "first"),
          deps: { prefix: "{kata-remote:test}" },
        });
        const instances = await fill(store);
        await store[Symbol.asyncDispose]();
        let number = 0;
        await work(async (reconcile) => {
          const dir = join(root, String(number++));
          if (number > 1) await cp(join(root, "ca"), join(dir, "ca"), { recursive: true });
          const tested = await opened(dir, instances, { reconcile, store: { kind: "redis", url: redis.url } });
          if (number === 1) await cp(join(dir, "ca"), join(root, "ca"), { recursive: true });
          return tested;
        });
      } finally {
        await rm(root, { recursive: true, force: true });
      }
    },
    withoutRedis(),
  );
});
