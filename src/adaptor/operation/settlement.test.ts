import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../base/fault.ts";
import { newOperationId } from "../../base/ids.ts";
import type { OperationRecord } from "../store/index.ts";
import { settlementOf } from "./settlement.ts";

describe("settlement", () => {
  it("backs off longer with every attempt, up to a minute, and never gives up what must be done", async () => {
    const now = new Date(1_000_000);
    const delays = [1, 2, 5, 50].map((attempt) => {
      const operation = {
        id: newOperationId(),
        kind: "stop-vm",
        subject: "s",
        input: {},
        state: "running",
        priority: 0,
        attempt,
        wakeAt: 0,
        lease: 1,
        submittedAt: "",
      } as const;
      const fault = new Fault("permission_denied", "no");
      const settlement = settlementOf({ operation, fault, cause: "failed", attempts: Number.POSITIVE_INFINITY, now });
      assert.equal(settlement.state, "queued");
      return settlement.state === "queued" ? settlement.wakeAt - now.getTime() : 0;
    });
    const [first = 0, , , last = 0] = delays;
    assert.ok(first >= 250 && first <= 500 && last >= 30_000 && last <= 60_000, delays.join(" "));
    assert.ok(delays.every(Number.isInteger));
  });

  const now = new Date(1_000_000);
  const operation: OperationRecord = {
    ...{
      id: newOperationId(),
      kind: "start-vm",
      subject: "s",
      input: {},
      priority: 0,
      attempt: 5,
      wakeAt: 0,
      lease: 1,
    },
    state: "running",
    submittedAt: "",
  };
  const settle = (fault: Fault, attempts = 5) => settlementOf({ operation, fault, cause: "failed", attempts, now });

  it("waits as long as the cloud says, and takes no attempt for being throttled", () => {
    const throttled = new Fault("unavailable", "slow down", { kind: "throttled", retryAfterMs: 45_000 });
    const settlement = settle(throttled);
    assert.ok(settlement.state === "queued" && settlement.uncounted === true);
    assert.ok(settlement.wakeAt >= now.getTime() + 45_000);
    assert.equal(settlement.fault?.kind, "throttled");
    assert.equal(settle(new Fault("unavailable", "no answer", { kind: "transient" })).state, "failed");
  });

  it("gives up what must be done only when its handler knows that nothing is left to do", () => {
    const forever = Number.POSITIVE_INFINITY;
    const refused = { kind: "capacity", final: true };
    assert.equal(
      settle(new Fault("resource_exhausted", "none", refused, { retryable: true }), forever).state,
      "failed",
    );
    assert.equal(settle(new Fault("resource_exhausted", "none", { kind: "capacity" }), forever).state, "queued");
  });
});
