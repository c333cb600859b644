import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AdaptorUnderTest } from "../../../../test/fakes/adaptor-under-test.ts";
import { realClock } from "../../../base/clock.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId, SandboxId } from "../../../base/ids.ts";
import { silentLogger } from "../../../base/log.ts";
import type { Assignment, BatchCreation, Instance } from "../../../provider/index.ts";
import type { SandboxRecord, SandboxStore } from "../../store/index.ts";
import { Tagger } from "./tagger.ts";

const MINUTE_MS = 60_000;
const [sandboxId, instanceId] = ["s-1" as SandboxId, "i-1" as InstanceId];

function world(assign: (assignment: Assignment) => Promise<void> = async () => undefined) {
  let now = 0;
  const tagged: string[] = [];
  const record = { id: sandboxId, nodeId: "n", intent: { name: "podvm-web" }, instance: { id: instanceId } };
  const sandboxes = { get: async () => record } as unknown as SandboxStore;
  const batches = {
    assign: async (id: InstanceId, assignment: Assignment) => {
      tagged.push(`${id} ${assignment.name} ${assignment.sandboxId} ${assignment.nodeId}`);
      await assign(assignment);
    },
  } as unknown as BatchCreation;
  const tagger = new Tagger({ batches, sandboxes, log: silentLogger(), now: () => new Date(now) });
  /** A listing after so many minutes. */
  const list = async (minutes: number, assigned?: Instance["assigned"]) => {
    now += minutes * MINUTE_MS;
    const instance = { id: instanceId, ...(assigned === undefined ? {} : { assigned }) } as Instance;
    tagger.compare([[record as unknown as SandboxRecord, instance]]);
    await new Promise((resolve) => setImmediate(resolve));
    return tagged.length;
  };
  return { tagger, tagged, list };
}

describe("tags that were lost", () => {
  it("are put on an instance that listings show without them for a minute", async () => {
    const { list, tagged } = world();
    assert.equal(await list(0), 0, "its tags may be on their way");
    assert.equal(await list(0.5), 0);
    assert.equal(await list(0.5), 1);
    assert.deepEqual(tagged, ["i-1 podvm-web s-1 n"]);
    assert.equal(await list(1), 1, "the listing is late");
    assert.equal(await list(10), 2, "and not for so long");
  });

  it("are left as they are where they name the sandbox and its node, and mended where they name another", async () => {
    const { list } = world();
    for (let n = 0; n < 3; n++) assert.equal(await list(2, { sandboxId, nodeId: "n" }), 0);
    await list(0, { sandboxId: "other" as SandboxId, nodeId: "n" });
    assert.equal(await list(1, { sandboxId: "other" as SandboxId, nodeId: "n" }), 1);
  });

  it("are not asked for twice while one request is under way, nor once they are forbidden", async () => {
    const answer = Promise.withResolvers<void>();
    const { list, tagger } = world(() => answer.promise);
    tagger.tag(instanceId, { name: "podvm-web", sandboxId, nodeId: "n" });
    for (let n = 0; n < 3; n++) assert.equal(await list(5), 1);
    answer.reject(new Fault("permission_denied", "may not"));
    for (let n = 0; n < 3; n++) assert.equal(await list(20), 1);
  });

  it("come back after the adaptor that should have put them ended", { timeout: 30_000 }, async () => {
    let ahead = 0;
    const clock = { now: () => new Date(Date.now() + ahead), after: realClock.after };
    await using tested = await AdaptorUnderTest.open({
      ...{ config: { providers: { zero: { places: ["a"] } } }, deps: { clock } },
    });
    tested.provider.knobs.assignFaults.push(new Fault("unavailable", "throttled"));
    const id = await tested.createVm();
    const instance = (await tested.startVm(id)).at(-1)?.instanceId ?? "";
    await tested.until(async () => tested.provider.knobs.assignFaults.length === 0, "the tags were lost");
    await tested.restart();
    await new Promise((resolve) => setTimeout(resolve, 300)); // some passes that see them missing
    assert.equal(tested.provider.assigned.size, 0);
    ahead = MINUTE_MS;
    await tested.until(async () => tested.provider.assigned.get(instance)?.sandboxId === id, "they are there");
  });
});
