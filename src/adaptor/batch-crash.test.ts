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

const CONFIG = { providers: { zero: { places: ["a"] } }, capacity: { batchWindowMs: 20 } };
const PODS = 3;

async function start(client: PodVmClient, sandboxId: SandboxId): Promise<number | undefined> {
  let last: number | undefined;
  for await (const event of client.startVm({ sandboxId }, call())) last = event.stage;
  return last;
}

describe("adaptor killed at any instant of a batch, with the embedded store", { timeout: 300_000 }, () => {
  killedAtAnyInstant(() => ({ kind: "embedded" }));
});

describe("adaptor killed at any instant of a batch, with redis", { timeout: 300_000, skip: withoutRedis() }, () => {
  let redis: RedisServer;
  before(async () => {
    redis = await RedisServer.start();
  });
  after(() => redis[Symbol.asyncDispose]());
  killedAtAnyInstant((dir) => ({ kind: "redis", url: redis.url, prefix: basename(dir) }));
});

function killedAtAnyInstant(storeOf: (dir: string) => object): void {
  it("gives each of its pods one VM after a restart, and leaves none over", { timeout: 300_000 }, async () => {
    let instants = 0;
    for (let instant = 1, died = true; died; instant++) {
      assert.ok(instant < 100, "it never gets through");
      const dir = await mkdtemp(join(tmpdir(), "batch-crash-"));
      const config = { ...CONFIG, store: storeOf(dir) };
      const crash = await AdaptorProcess.start({ dir, instant, config });
      const ids = Array.from({ length: PODS }, () => newSandboxId());
      const createAndStart = async (id: SandboxId): Promise<boolean> => {
        await crash.client.createVm({ sandboxId: id, nodeId: "node-1" }, call());
        await start(crash.client, id).catch(() => undefined);
        return true;
      };
      const created = await Promise.all(ids.map((id) => createAndStart(id).catch(() => false)));
      await Promise.race([crash.exited, new Promise((r) => setTimeout(r, 300))]);
      died = await crash.kill();
      instants = instant;

      await using tested = await AdaptorUnderTest.open({ dir, config });
      for (const [at, id] of ids.entries())
        if (created[at] !== true) await tested.createVm({ id }).catch(() => undefined);
      const stages = await Promise.all(ids.map((id) => start(tested.client, id)));
      assert.deepEqual(stages, Array(PODS).fill(Stage.ADDRESS), `instant ${instant}`);
      const records = await Promise.all(
        ids.map((id) => tested.json<{ instance: { id: string } }>(`/v1/sandboxes/${id}`)),
      );
      assert.equal(new Set(records.map((r) => r.instance.id)).size, PODS, `instant ${instant}: one VM each`);
      await tested.until(async () => (await tested.instances()).length === PODS, `instant ${instant}: none over`);
      // The node died too and forgot the pods: nothing may stay.
      await Promise.all(ids.map((sandboxId) => tested.client.stopVm({ sandboxId }, call())));
      await tested.until(async () => (await tested.instances()).length === 0, `instant ${instant}: all gone`);
    }
    assert.ok(instants >= 12, `only ${instants} instants`);
  });
}
