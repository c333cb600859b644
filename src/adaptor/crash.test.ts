import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { AdaptorUnderTest, call, type PodVmClient } from "../../test/fakes/adaptor-under-test.ts";
import { AdaptorProcess } from "../../test/support/adaptor-process.ts";
import { RedisServer, withoutRedis } from "../../test/support/redis-server.ts";
import { newSandboxId, type SandboxId } from "../base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../gen/kataremote/podvm/v1/podvm.ts";

/** Which store an adaptor with this directory uses. */
type StoreOf = (dir: string) => Readonly<Record<string, unknown>>;

function crashingAdaptor(dir: string, instant: number, store: ReturnType<StoreOf>): Promise<AdaptorProcess> {
  return AdaptorProcess.start({ dir, instant, config: { store } });
}

async function start(client: PodVmClient, sandboxId: SandboxId): Promise<number | undefined> {
  let last: number | undefined;
  for await (const event of client.startVm({ sandboxId }, call())) last = event.stage;
  return last;
}

/** Does something to an adaptor that may die meanwhile. @returns whether it was answered */
async function answered(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

/** Runs a scenario for instant 1, 2, …, until one is not reached any more. @returns how many there were */
async function atEveryInstant(scenario: (dir: string, instant: number) => Promise<boolean>): Promise<number> {
  for (let instant = 1; ; instant++) {
    const dir = await mkdtemp(join(tmpdir(), "crash-"));
    if (!(await scenario(dir, instant))) return instant - 1;
    assert.ok(instant < 100, "it never gets through");
  }
}

/** Waits for the crash; false (and the adaptor ended) when what was asked of it came through without one. */
async function crashed(adaptor: AdaptorProcess): Promise<boolean> {
  // Whatever it goes on with behind its answers is done well within this time.
  await Promise.race([adaptor.exited, new Promise((r) => setTimeout(r, 300))]);
  return adaptor.kill();
}

describe("adaptor killed at any instant, with the embedded store", { timeout: 300_000 }, () => {
  killedAtAnyInstant(() => ({ kind: "embedded" }));
});

describe("adaptor killed at any instant, with redis", { timeout: 300_000, skip: withoutRedis() }, () => {
  let redis: RedisServer;
  before(async () => {
    redis = await RedisServer.start();
  });
  after(() => redis[Symbol.asyncDispose]());
  killedAtAnyInstant((dir) => ({ kind: "redis", url: redis.url, prefix: basename(dir) }));
});

function killedAtAnyInstant(storeOf: StoreOf): void {
  it("of a start: after a restart the VM is there exactly once, or the sandbox was never known", async () => {
    const instants = await atEveryInstant(async (dir, instant) => {
      const crash = await crashingAdaptor(dir, instant, storeOf(dir));
      const id = newSandboxId();
      const pod = { namespace: "default", name: "web", uid: "u" };
      const created = await answered(crash.client.createVm({ sandboxId: id, nodeId: "node-1", pod }, call()));
      const told = created && (await start(crash.client, id).catch(() => undefined)) === Stage.ADDRESS;
      const died = await crashed(crash);

      await using tested = await AdaptorUnderTest.open({ dir, config: { store: storeOf(dir) } });
      if (created) assert.equal(await start(tested.client, id), Stage.ADDRESS, `instant ${instant}`);
      else await tested.createVm({ id }); // as a node repeats it
      assert.ok((await tested.instances()).length <= 1, `instant ${instant}: more than one instance`);
      if (told) assert.equal(tested.provider.created, 0, "a told instance is kept, not made again");
      // The node died too and forgot the pod: nothing may stay.
      await tested.client.syncNode({ nodeId: "node-1", bootId: "b", liveSandboxIds: [] }, call());
      await tested.until(async () => (await tested.instances()).length === 0, `instant ${instant}: all gone`);
      return died;
    });
    assert.ok(instants >= 12, `only ${instants} instants`);
  });

  it("of a stop: an answered stop is carried out without being asked again", async () => {
    const instants = await atEveryInstant(async (dir, instant) => {
      const id = newSandboxId();
      {
        const before = await crashingAdaptor(dir, 0, storeOf(dir));
        await before.client.createVm({ sandboxId: id, nodeId: "node-1" }, call());
        assert.equal(await start(before.client, id), Stage.ADDRESS);
        await before.kill();
      }
      const crash = await crashingAdaptor(dir, instant, storeOf(dir));
      const stopped = await answered(crash.client.stopVm({ sandboxId: id }, call()));
      const died = await crashed(crash);

      await using tested = await AdaptorUnderTest.open({ dir, config: { store: storeOf(dir) } });
      if (!stopped) await tested.client.stopVm({ sandboxId: id }, call());
      await tested.until(async () => (await tested.instances()).length === 0, `instant ${instant}: gone`);
      await tested.until(async () => (await tested.phase(id)) === "gone", `instant ${instant}: the record says so`);
      return died;
    });
    assert.ok(instants >= 8, `only ${instants} instants`);
  });
}
