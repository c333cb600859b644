import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { InstanceId } from "../../base/ids.ts";
import { newSandboxId } from "../../base/ids.ts";
import type { SandboxRecord } from "../store/index.ts";
import { CircuitBreaker } from "./circuit-breaker.ts";

class World {
  now = 0;
  readonly breaker = new CircuitBreaker(
    { podFailures: 3, classFailures: 5, openMs: 60_000, maxOpenMs: 240_000 },
    { now: () => new Date(this.now) },
  );

  sandbox(pod = "web", uid = "u"): SandboxRecord {
    return {
      ...{ id: newSandboxId(), revision: 1, phase: "prepared", nodeId: "n", createdAt: "", phaseSince: "" },
      pod: { namespace: "default", name: pod, uid },
      containerd: { namespace: "k8s.io", id: "c" },
      request: { vcpus: 1, memoryMiB: 1, gpus: 0 },
    };
  }

  /** A start that gets a VM and ends in this phase. */
  start(record: SandboxRecord, end: SandboxRecord["phase"]): void {
    this.breaker.check(record);
    const instance = { id: "i-1" as InstanceId, addresses: [], port: 1 };
    this.breaker.observe({ ...record, phase: "creating" });
    this.breaker.observe({ ...record, phase: "booting", instance });
    this.breaker.observe({ ...record, phase: end, instance, stopReason: "no agent answered" });
    if (end === "stopping") this.breaker.observe({ ...record, phase: "gone" });
  }
}

describe("the circuit breaker", () => {
  it("makes no VM for a pod whose last three were for nothing, and says when it will", () => {
    const world = new World();
    for (let n = 0; n < 3; n++) world.start(world.sandbox(), "stopping");
    assert.throws(
      () => world.breaker.check(world.sandbox()),
      (e: { code?: string; message: string; context?: { retryAfterMs?: number } }) => {
        assert.equal(e.code, "unavailable");
        assert.match(e.message, /3 VMs in a row.*default\/web.*no agent answered.*1970-01-01T00:01:00.000Z, in 60 s/);
        assert.equal(e.context?.retryAfterMs, 60_000);
        return true;
      },
    );
    world.breaker.check(world.sandbox("other"));
    world.breaker.check(world.sandbox("web", "made anew"));
    assert.equal(world.breaker.open, 1);
  });

  it("lets one try after the wait, whose end decides; each failure doubles the wait up to a limit", () => {
    const world = new World();
    for (let n = 0; n < 3; n++) world.start(world.sandbox(), "failed");
    for (const waitMs of [120_000, 240_000]) {
      world.now += 240_000;
      const probe = world.sandbox();
      world.breaker.check(probe);
      assert.throws(() => world.breaker.check(world.sandbox()), /the next one is made/);
      world.breaker.check(probe); // the same call again
      world.start(probe, "failed");
      world.now += waitMs - 1;
      assert.throws(() => world.breaker.check(world.sandbox()));
    }
    world.now += 240_000;
    world.start(world.sandbox(), "ready");
    for (let n = 0; n < 5; n++) world.breaker.check(world.sandbox());
  });

  it("counts a class whose pods all fail, and no start that burned no VM", () => {
    const world = new World();
    for (let n = 0; n < 9; n++) {
      const refused = world.sandbox(`quota-${n}`);
      world.breaker.observe({ ...refused, phase: "creating" });
      world.breaker.observe({ ...refused, phase: "failed" });
    }
    for (let n = 0; n < 5; n++) world.start(world.sandbox(`pod-${n}`), "stopping");
    assert.throws(() => world.breaker.check(world.sandbox("new")), /pods of this size/);
  });
});
