import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Fault } from "../../../src/base/fault.ts";
import { newSandboxId, type SandboxId } from "../../../src/base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../../../src/gen/kataremote/podvm/v1/podvm.ts";
import { AdaptorUnderTest, call, type PodVmClient } from "../../fakes/adaptor-under-test.ts";
import { AdaptorProcess } from "../../support/adaptor-process.ts";
import { RedisServer, withoutRedis } from "../../support/redis-server.ts";

const LEASE_MS = 1_000;

describe("two adaptors on one redis", { timeout: 300_000, skip: withoutRedis() }, () => {
  let redis: RedisServer;
  let root: string;
  let config: Readonly<Record<string, unknown>>;
  before(async () => {
    redis = await RedisServer.start();
  });
  after(() => redis[Symbol.asyncDispose]());
  let number = 0;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "adaptors-"));
    config = { store: { kind: "redis", url: redis.url, prefix: `t${number++}`, leaseMs: LEASE_MS } };
  });
  afterEach(() => rm(root, { recursive: true }));

  const cloud = () => join(root, "cloud");
  const pod = { namespace: "default", name: "web", uid: "u" };

  /** The second adaptor, in this process, with the CA of the first one. */
  async function second(change: Readonly<Record<string, unknown>> = {}): Promise<AdaptorUnderTest> {
    const dir = join(root, "second");
    await mkdir(dir);
    await cp(join(root, "first", "ca"), join(dir, "ca"), { recursive: true });
    return AdaptorUnderTest.open({ dir, config: { ...config, ...change }, cloud: cloud() });
  }
  async function first(instant = 0, fatal: "SIGKILL" | "SIGSTOP" = "SIGKILL"): Promise<AdaptorProcess> {
    const dir = join(root, "first");
    await mkdir(dir, { recursive: true });
    return AdaptorProcess.start({ dir, instant, fatal, config, cloud: cloud() });
  }
  /** Another pair: nothing is left of the one before. */
  async function fresh(prefix: string): Promise<void> {
    await rm(root, { recursive: true });
    await mkdir(root);
    config = { store: { ...(config.store as object), prefix } };
  }
  async function start(client: PodVmClient, sandboxId: SandboxId): Promise<number | undefined> {
    let last: number | undefined;
    for await (const event of client.startVm({ sandboxId }, call())) last = event.stage;
    return last;
  }

  it("one killed in the middle of a start: the other finishes it, and there is one instance", async () => {
    let died = true;
    for (let instant = 3; died; instant += 3) {
      assert.ok(instant < 60, "it never gets through");
      await fresh(`k${instant}`);
      const one = await first(instant);
      await using two = await second();
      const id = newSandboxId();
      const created = await one.client.createVm({ sandboxId: id, nodeId: "node-1", pod }, call()).then(
        () => true,
        () => false,
      );
      const told = created && (await start(one.client, id).catch(() => undefined)) === Stage.ADDRESS;
      await Promise.race([one.exited, new Promise((resolve) => setTimeout(resolve, 200))]);
      died = await one.kill();
      if (!created) await two.createVm({ id });
      assert.equal(await start(two.client, id), Stage.ADDRESS, `instant ${instant}`);
      assert.equal((await two.instances()).length, 1, `instant ${instant}`);
      if (told) assert.equal(two.provider.created, 0, "a told instance is kept");
      await two.client.stopVm({ sandboxId: id }, call());
      await two.until(async () => (await two.instances()).length === 0, `instant ${instant}: gone`);
    }
  });

  it("one frozen in the middle of a start cannot act when it wakes: its work was taken over", async () => {
    let froze = true;
    for (let instant = 4; froze; instant += 3) {
      assert.ok(instant < 60, "it never gets through");
      await fresh(`f${instant}`);
      const one = await first(instant, "SIGSTOP");
      const id = newSandboxId();
      await one.client.createVm({ sandboxId: id, nodeId: "node-1", pod }, call());
      const started = start(one.client, id).catch(() => undefined);
      froze = await Promise.race([one.reached.then(() => true), started.then(() => false)]);
      await using two = await second();
      assert.equal(await start(two.client, id), Stage.ADDRESS, `instant ${instant}`);
      const wakesBeforeStop = instant % 2 === 0;
      if (wakesBeforeStop) one.signal("SIGCONT");
      else await two.client.stopVm({ sandboxId: id }, call());
      if (!wakesBeforeStop) await two.until(async () => (await two.instances()).length === 0, "gone before it wakes");
      one.signal("SIGCONT");
      await new Promise((resolve) => setTimeout(resolve, 300)); // what it has in its hands, it does now
      assert.ok((await two.instances()).length <= 1, `instant ${instant}: more than one instance`);
      await two.client.stopVm({ sandboxId: id }, call());
      await two.until(async () => (await two.instances()).length === 0, `instant ${instant}: gone`);
      assert.equal(await two.phase(id), "gone");
      await one.kill();
      await started;
    }
  });

  it("share the work, and each tells of what the other does", async () => {
    const one = await first();
    await using two = await second();
    const id = newSandboxId();
    await one.client.createVm({ sandboxId: id, nodeId: "node-1", pod }, call());
    // Joined on both, whoever does it; a loss that either finds reaches the node's watch on the other.
    const both = await Promise.all([start(one.client, id), start(two.client, id)]);
    assert.deepEqual(both, [Stage.ADDRESS, Stage.ADDRESS]);
    const watch = one.client.watchVm({ nodeId: "node-1" }, call())[Symbol.asyncIterator]();
    const next = watch.next();
    const [instance = ""] = await two.instances();
    two.provider.fail(instance as Parameters<typeof two.provider.fail>[0], "kernel panic");
    const loss = await next;
    assert.match(loss.done === true ? "" : loss.value.reason, /kernel panic/);
    await watch.return?.();
    await one.kill();
  });

  it("a start that fails at one and is tried again is told of at both, also when it waits for a batch", async () => {
    for (const places of [undefined, ["a"]]) {
      await fresh(places === undefined ? "w" : "wb");
      const change = { providers: { zero: places === undefined ? {} : { places } } };
      await (await first()).kill();
      await using one = await AdaptorUnderTest.open({
        dir: join(root, "first"),
        config: { ...config, ...change },
        cloud: cloud(),
      });
      await using two = await second(change);
      // Either may run it.
      for (const { provider } of [one, two])
        provider.knobs.createFaults.push(
          new Fault("unavailable", "no answer", { kind: "transient", retryAfterMs: 1_000 }),
        );
      const id = await two.createVm();
      const stages = async ({ client }: AdaptorUnderTest) => {
        const seen: string[] = [];
        for await (const { stage, message } of client.startVm({ sandboxId: id }, call()))
          seen.push(`${stage} ${message}`);
        return seen;
      };
      const expected = [`${Stage.ACCEPTED} `, `${Stage.WAITING} no answer`, `${Stage.INSTANCE} `, `${Stage.ADDRESS} `];
      assert.deepEqual(await Promise.all([stages(one), stages(two)]), [expected, expected]);
      for (const { provider } of [one, two]) provider.knobs.createFaults.length = 0;
    }
  });

  it("a stop at one ends a start that the other is busy with", async () => {
    // The start can only run at the second one: the first has no room for it while it holds this one's config.
    await using two = await (async () => {
      await (await first()).kill();
      return second();
    })();
    two.provider.knobs.createLatencyMs = 60_000;
    const id = await two.createVm();
    const starting = start(two.client, id);
    await two.until(async () => (await two.phase(id)) === "creating", "creating");
    const one = await first();
    await one.client.stopVm({ sandboxId: id }, call());
    assert.equal(await starting, Stage.FAILED);
    two.provider.knobs.createLatencyMs = 0;
    await two.until(async () => (await two.phase(id)) === "gone", "gone");
    assert.deepEqual(await two.instances(), []);
    await one.kill();
  });

  it("with different CAs do not work together, and the second says what to do", async () => {
    const one = await first();
    const dir = join(root, "stranger");
    const opening = AdaptorUnderTest.open({ dir, config, cloud: cloud() });
    await assert.rejects(opening, { code: "failed_precondition", message: /copy that directory/ });
    await one.kill();
  });
});
