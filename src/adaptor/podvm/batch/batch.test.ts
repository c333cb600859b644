import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { AdaptorUnderTest } from "../../../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../../../base/fault.ts";
import type { SandboxId } from "../../../base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../../../gen/kataremote/podvm/v1/podvm.ts";

let tested: AdaptorUnderTest;
beforeEach(async () => {
  tested = await AdaptorUnderTest.open({
    config: { providers: { zero: { places: ["a", "b", "c"] } }, capacity: { batchWindowMs: 60 } },
  });
});
afterEach(() => tested[Symbol.asyncDispose]());

async function start(
  name: string,
): Promise<{ readonly id: SandboxId; readonly stage: number; readonly message: string }> {
  const id = await tested.createVm({ name });
  const last = (await tested.startVm(id)).at(-1);
  return { id, stage: last?.stage ?? 0, message: last?.message ?? "" };
}
const startAll = (count: number) => Promise.all(Array.from({ length: count }, (_, n) => start(`pod-${n}`)));

async function instanceOf(id: SandboxId): Promise<string | undefined> {
  return (await tested.json<{ instance?: { id: string } }>(`/v1/sandboxes/${id}`)).instance?.id;
}

/** Every sandbox has an instance of its own, and there are no others. */
async function assertOneEach(ids: readonly SandboxId[]): Promise<void> {
  const given = await Promise.all(ids.map(instanceOf));
  assert.ok(given.every((i) => i !== undefined));
  assert.equal(new Set(given).size, ids.length);
  await tested.until(async () => (await tested.instances()).length === ids.length, "no surplus");
}

describe("creates in batches", { timeout: 60_000 }, () => {
  it("gives pods of one class that come together one request, and each its own instance and tags", async () => {
    const started = await startAll(10);
    assert.ok(started.every((s) => s.stage === Stage.ADDRESS));
    await assertOneEach(started.map((s) => s.id));
    assert.deepEqual(
      tested.provider.asked.map((b) => [b.count, b.place]),
      [[10, "a"]],
    );
    await tested.until(async () => tested.provider.assigned.size === 10, "all are tagged");
    for (const { id } of started) {
      const tags = tested.provider.assigned.get((await instanceOf(id)) ?? "");
      assert.equal(tags?.sandboxId, id);
      assert.match(tags?.name ?? "", /^podvm-pod-\d-/);
    }
  });

  it("asks for no more at once than the provider takes, and goes on where a place gives fewer", async () => {
    tested.provider.knobs.pools.set("a", 4);
    const started = await startAll(12);
    assert.ok(started.every((s) => s.stage === Stage.ADDRESS));
    await assertOneEach(started.map((s) => s.id));
    assert.ok(tested.provider.asked.every((b) => b.count <= 10));
    assert.ok(tested.provider.asked.some((b) => b.place === "b"));
  });

  it("goes to the next place when one has nothing, and remembers it", async () => {
    tested.provider.knobs.pools.set("a", 0).set("b", 0);
    const [first] = await startAll(1);
    assert.equal(first?.stage, Stage.ADDRESS);
    await start("later");
    assert.deepEqual(
      tested.provider.asked.map((b) => b.place),
      ["a", "b", "c", "c"],
    );
    assert.equal(new Set(tested.provider.asked.map((b) => b.class.tags.createOperation)).size, 4, "a token each");
  });

  it("tells who waits why there is nothing for it, so that giving up can say so", async () => {
    for (const place of ["a", "b", "c"]) tested.provider.knobs.pools.set(place, 0);
    const sandboxId = await tested.createVm({ name: "waits" });
    for await (const event of tested.client.startVm({ sandboxId }, { signal: AbortSignal.timeout(20_000) })) {
      if (event.stage === Stage.ACCEPTED) continue;
      assert.equal(event.stage, Stage.WAITING);
      assert.equal(event.code, "resource_exhausted");
      assert.match(event.message, /3 places have no room: .*a: no capacity/);
      return;
    }
    assert.fail("the stream ended");
  });

  it("leaves no instance of a finished batch that nobody was given, though others of the batch live", async () => {
    const started = await startAll(2);
    await tested.until(async () => tested.provider.assigned.size === 2, "all are tagged");
    const [kept] = await tested.provider.listInstances("test");
    assert.ok(kept !== undefined);
    // As after a crash between the cloud's answer and the records: one more than was given out.
    const { cluster, owner, createOperation } = kept.tags;
    const tags = { cluster, owner, createOperation, created: new Date().toISOString() } as const;
    const leftover = tested.provider.addLike(kept.id, { id: "zero-leftover", tags });
    assert.ok((await tested.instances()).includes(leftover));
    await assertOneEach(started.map((s) => s.id));
  });

  it("asks for fewer when a quota has no room for all", async () => {
    tested.provider.knobs.quota = 3;
    const started = await startAll(4);
    const ready = started.filter((s) => s.stage === Stage.ADDRESS);
    assert.equal(ready.length, 3);
    const [refused] = started.filter((s) => s.stage === Stage.FAILED);
    assert.match(refused?.message ?? "", /no VM can be had: the quota of 3 is used up/);
  });

  it("repeats a request without an answer with its token, and gets the same instances", async () => {
    tested.provider.knobs.lostAnswers.push(new Fault("unavailable", "no answer", { kind: "transient" }));
    const started = await startAll(3);
    assert.ok(started.every((s) => s.stage === Stage.ADDRESS));
    await assertOneEach(started.map((s) => s.id));
    assert.equal(tested.provider.created, 3);
    assert.equal(new Set(tested.provider.asked.map((b) => b.class.tags.createOperation)).size, 1);
    assert.deepEqual(
      tested.provider.asked.map((b) => b.admitted),
      [true, false],
    );
  });

  it("removes an instance whose sandbox was stopped meanwhile, or gives it to another", async () => {
    // The first answer is lost, so there is time to stop one of them before the instances are given out.
    tested.provider.knobs.lostAnswers.push(new Fault("unavailable", "no answer", { kind: "transient" }));
    const ids = await Promise.all(["x", "y"].map((name) => tested.createVm({ name })));
    const both = ids.map((id) => tested.startVm(id));
    await tested.until(async () => tested.provider.created === 2, "made");
    await tested.client.stopVm({ sandboxId: ids[0] as SandboxId }, { signal: AbortSignal.timeout(5_000) });
    const [stopped, kept] = await Promise.all(both);
    assert.equal(stopped?.at(-1)?.stage, Stage.FAILED);
    assert.equal(kept?.at(-1)?.stage, Stage.ADDRESS);
    await assertOneEach([ids[1] as SandboxId]);
  });

  it("fails the pods of a batch that the cloud refuses, with its words, and makes nothing", async () => {
    tested.provider.knobs.createFaults.push(new Fault("permission_denied", "may not", { kind: "auth" }));
    const started = await startAll(2);
    assert.ok(started.every((s) => s.stage === Stage.FAILED && /may not/.test(s.message)));
    assert.deepEqual(await tested.instances(), []);
  });

  it("makes no VM for a pod whose VMs only fail, and says when it will", async () => {
    const pod = { namespace: "default", name: "broken", uid: "u1" };
    const again = async (): Promise<string> => {
      const { newSandboxId } = await import("../../../base/ids.ts");
      const sandboxId = newSandboxId();
      const call = { signal: AbortSignal.timeout(10_000) };
      try {
        await tested.client.createVm({ sandboxId, nodeId: tested.nodeId, pod, containerdId: "c1" }, call);
      } catch (e) {
        return (e as Error).message;
      }
      await tested.startVm(sandboxId);
      await tested.client.stopVm({ sandboxId, reason: "no agent answered" }, call);
      return "";
    };
    for (let n = 0; n < 3; n++) assert.equal(await again(), "");
    assert.match(
      await again(),
      /3 VMs in a row.*pod default\/broken.*no agent answered.*the next one is made at .*in \d+ s/,
    );
    assert.equal(tested.provider.created, 3);
    const metrics = await (await fetch(`${tested.rest}/metrics`)).text();
    assert.match(metrics, /kata_remote_circuits_open 1/);
    await tested.restart();
    assert.match(await again(), /3 VMs in a row.*pod default\/broken/, "a restart gives it no new chance");
    assert.equal(tested.provider.created, 3);
    assert.equal((await start("another")).stage, Stage.ADDRESS);
  });
});
