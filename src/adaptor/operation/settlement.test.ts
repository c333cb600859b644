import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../base/fault.ts";
import { newOperationId } from "../../base/ids.ts";
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
});
