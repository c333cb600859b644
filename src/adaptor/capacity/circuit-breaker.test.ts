import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { InstanceId } from "../../base/ids.ts";
import { newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { type SandboxRecord, SqliteStore } from "../store/index.ts";
import { CircuitBreaker } from "./circuit-breaker.ts";

const OPTIONS = { podFailures: 3, classFailures: 5, openMs: 60_000, maxOpenMs: 240_000 };

describe("the circuit breaker", () => {
  let dir: string;
  let store: SqliteStore;
  let now: number;
  let breaker: CircuitBreaker;
  const open = () => CircuitBreaker.open(OPTIONS, { store, now: () => new Date(now), log: silentLogger() });
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "breaker-"));
    store = await SqliteStore.open(join(dir, "store.sqlite"));
    now = 1_000_000_000_000;
    breaker = await open();
  });
  afterEach(async () => {
    await breaker[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  type New = Omit<SandboxRecord, "revision" | "phaseSince">;
  function sandbox(pod = "web", uid = "u"): New {
    return {
      ...{ id: newSandboxId(), phase: "prepared", nodeId: "n", createdAt: "" },
      pod: { namespace: "default", name: pod, uid },
      containerd: { namespace: "k8s.io", id: "c" },
      request: { vcpus: 1, memoryMiB: 1, gpus: 0 },
    };
  }
  async function boot(made: New): Promise<SandboxRecord> {
    await breaker.check(made);
    const creating = await store.sandboxes.update(await store.sandboxes.insert(made), { phase: "creating" });
    const instance = { id: "i-1" as InstanceId, addresses: [], port: 1 };
    return store.sandboxes.update(creating, { phase: "booting", instance });
  }
  /** A start that gets a VM and ends in this phase. */
  async function start(made: New, end: SandboxRecord["phase"]): Promise<void> {
    const ended = await store.sandboxes.update(await boot(made), { phase: end, stopReason: "no agent answered" });
    if (end === "stopping") await store.sandboxes.update(ended, { phase: "gone" });
  }

  it("makes no VM for a pod whose last three were for nothing, and says when it will", async () => {
    for (let n = 0; n < 3; n++) await start(sandbox(), "stopping");
    const refusal = (e: { code?: string; message: string; context?: { retryAfterMs?: number } }) => {
      assert.equal(e.code, "unavailable");
      assert.match(e.message, /3 VMs in a row.*default\/web.*no agent answered.*2001-09-09T01:47:40.000Z, in 60 s/);
      assert.equal(e.context?.retryAfterMs, 60_000);
      return true;
    };
    await assert.rejects(breaker.check(sandbox()), refusal);
    await breaker.check(sandbox("other"));
    await breaker.check(sandbox("web", "made anew"));
    assert.equal(await breaker.countOpen(), 1);
  });

  it("lets one try after the wait, whose end decides; each failure doubles the wait up to a limit", async () => {
    for (let n = 0; n < 3; n++) await start(sandbox(), "failed");
    for (const waitMs of [120_000, 240_000]) {
      now += 240_000;
      const [probe, ...others] = [sandbox(), sandbox(), sandbox()];
      assert.ok(probe !== undefined);
      const asked = await Promise.allSettled([probe, ...others].map((s) => breaker.check(s)));
      assert.deepEqual(
        asked.map((a) => a.status),
        ["fulfilled", "rejected", "rejected"],
      );
      await breaker.check(probe); // the same call again
      await start(probe, "failed");
      now += waitMs - 1;
      await assert.rejects(breaker.check(sandbox()), /the next one is made/);
    }
    now += 240_000;
    await start(sandbox(), "ready");
    for (let n = 0; n < 5; n++) await breaker.check(sandbox());
    assert.deepEqual(await store.facts.list("circuit:"), new Map());
  });

  it("lets another one try when the one that was let through had no VM", async () => {
    for (let n = 0; n < 3; n++) await start(sandbox(), "failed");
    now += 60_000;
    const refused = sandbox();
    await breaker.check(refused);
    await assert.rejects(breaker.check(sandbox()));
    const creating = await store.sandboxes.update(await store.sandboxes.insert(refused), { phase: "creating" });
    await store.sandboxes.update(creating, { phase: "failed" });
    await breaker.check(sandbox());
  });

  it("counts a class whose pods all fail, and no start that burned no VM", async () => {
    for (let n = 0; n < 9; n++) {
      const creating = await store.sandboxes.update(await store.sandboxes.insert(sandbox(`quota-${n}`)), {
        phase: "creating",
      });
      await store.sandboxes.update(creating, { phase: "failed" });
    }
    for (let n = 0; n < 5; n++) await start(sandbox(`pod-${n}`), "stopping");
    await assert.rejects(breaker.check(sandbox("new")), /pods of this size/);
  });

  it("knows it all after a restart, the failure of a start that was under way included", async () => {
    for (let n = 0; n < 2; n++) await start(sandbox(), "stopping");
    const underWay = await boot(sandbox());
    await breaker[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    store = await SqliteStore.open(join(dir, "store.sqlite"));
    breaker = await open();
    await breaker.check(sandbox());
    await store.sandboxes.update(underWay, { phase: "failed" });
    await assert.rejects(breaker.check(sandbox()), /3 VMs in a row/);
    now += 60_000;
    await breaker[Symbol.asyncDispose]();
    breaker = await open();
    await start(sandbox(), "failed");
    now += 119_999;
    await assert.rejects(breaker.check(sandbox()), /4 VMs in a row/);
  });

  it("counts a failure once, though each adaptor of the store sees it", async () => {
    const other = await open();
    for (let n = 0; n < 2; n++) await start(sandbox(), "stopping");
    await breaker.check(sandbox());
    await start(sandbox(), "stopping");
    await assert.rejects(breaker.check(sandbox()), /3 VMs in a row/);
    await assert.rejects(other.check(sandbox()), /3 VMs in a row/);
    await other[Symbol.asyncDispose]();
  });

  it("forgets a pod that did not come again", async () => {
    for (let n = 0; n < 3; n++) await start(sandbox("once"), "failed");
    now += 2 * 3_600_000;
    await breaker[Symbol.asyncDispose]();
    breaker = await open();
    await breaker.check(sandbox("once"));
    await start(sandbox("later"), "failed");
    await breaker[Symbol.asyncDispose]();
    const left = [...(await store.facts.list("circuit:")).keys()].filter((name) => name.includes("once"));
    assert.deepEqual(left, []);
    breaker = await open();
  });
});
