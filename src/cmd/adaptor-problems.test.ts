import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AdaptorUnderTest } from "../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../base/fault.ts";
import { type AdaptorProblems, problemLines } from "./adaptor-problems.ts";

describe("what `kata-remote ps` shows of an adaptor's problems", { timeout: 60_000 }, () => {
  it("is a deletion that is stuck in the cloud: instance, pod, node, attempts and the last error", async () => {
    await using tested = await AdaptorUnderTest.open({
      config: { reconcile: { intervalMs: 50, lostIntervalMs: 50, orphanGraceMs: 0, stuckDeleteMs: 200 } },
    });
    const id = await tested.createVm();
    const instance = (await tested.startVm(id)).at(-1)?.instanceId;
    const problems = async () => problemLines(await tested.json<AdaptorProblems>("/v1/problems"));
    await tested.until(async () => (await problems()).length === 0, "nothing is wrong");
    const broken = () => new Fault("unavailable", "the zone is down", {}, { retryable: true });
    tested.provider.knobs.deleteFaults.push(...Array.from({ length: 20 }, broken));
    const asked = performance.now();
    await tested.client.stopVm({ sandboxId: id }, { signal: AbortSignal.timeout(5_000) });
    assert.ok(performance.now() - asked < 1_000, "StopVM does not wait for the cloud");
    const [line = ""] = await tested.until(async () => {
      const lines = await problems();
      return lines.length === 0 ? undefined : lines;
    }, "it is shown");
    const said = `DELETING SINCE \\S+  ${instance} default/web ${tested.nodeId} ${id.slice(0, 8)}  attempt \\d+: the zone is down`;
    assert.match(line, new RegExp(said));
  });

  it("is a recovery that only an operator can end, with what to do", () => {
    const recovery = { epoch: "e1", open: true, kept: ["i-1"], waitingFor: [], unassigned: ["i-1"] };
    const report = { silentNodes: [{ nodeId: "n", reportedAt: "2026-01-01T00:00:00Z", live: 3 }], stuckDeletes: [] };
    const advised = problemLines({ ...report, recovery: { ...recovery, advice: "look at i-1, then confirm" } });
    assert.deepEqual(advised, [
      "SILENT NODE  n  since 2026-01-01T00:00:00Z  3 sandboxes",
      "RECOVERY OPEN  1 instances without a record are kept, 1 name no node; look at i-1, then confirm",
    ]);
    assert.match(problemLines({ ...report, recovery }).at(-1) ?? "", /adaptor confirm-recovery e1$/);
    assert.deepEqual(problemLines(undefined), []);
  });
});
