import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { AdaptorUnderTest, call } from "../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../base/fault.ts";
import { type InstanceId, newSandboxId, type SandboxId } from "../base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../gen/kataremote/podvm/v1/podvm.ts";
import { makeCsr, newKeyPair, spkiFingerprint } from "../identity/index.ts";

const throttled = (): Fault => new Fault("unavailable", "the cloud is throttling");
const noCapacity = (): Fault => new Fault("resource_exhausted", "no m1.small left in zone a");

describe("adaptor", { timeout: 120_000 }, () => {
  let tested: AdaptorUnderTest;
  before(async () => {
    tested = await AdaptorUnderTest.open();
  });
  after(() => tested[Symbol.asyncDispose]());

  async function started(): Promise<{ id: SandboxId; instance: InstanceId }> {
    const id = await tested.createVm();
    const events = await tested.startVm(id);
    return { id, instance: (events.at(-1)?.instanceId ?? "") as InstanceId };
  }

  async function gone(instance: string): Promise<void> {
    await tested.until(async () => !(await tested.instances()).includes(instance), `${instance} gone`);
  }

  it("listens on a socket that only its user can open", async () => {
    assert.equal((await stat(tested.config.grpc.socketPath)).mode & 0o777, 0o600);
    assert.deepEqual((await tested.client.version({}, call())).provider, "zero");
  });

  describe("startVm", () => {
    it("tells accepted, instance and address, and the instance has name and tags", async () => {
      const id = await tested.createVm({ name: "Web_1" });
      const events = await tested.startVm(id);
      assert.deepEqual(
        events.map((e) => e.stage),
        [Stage.ACCEPTED, Stage.INSTANCE, Stage.ADDRESS],
      );
      const last = events.at(-1);
      assert.deepEqual([last?.addresses, last?.port], [["127.0.0.1"], 15150]);
      const instance = (await tested.provider.listInstances("test")).find((i) => i.id === last?.instanceId);
      assert.equal(instance?.name, `podvm-web-1-${id.slice(0, 8)}`);
      assert.equal(instance?.tags.createOperation, last?.operationId);
      assert.equal(instance?.tags.owner, "kata-remote");
    });

    it("joins the running start when called twice, and repeats its outcome afterwards", async () => {
      tested.provider.knobs.createLatencyMs = 100;
      const before = tested.provider.created;
      const id = await tested.createVm();
      const [one, two] = await Promise.all([tested.startVm(id), tested.startVm(id)]);
      tested.provider.knobs.createLatencyMs = 0;
      const three = await tested.startVm(id);
      assert.equal(tested.provider.created, before + 1);
      for (const events of [one, two, three]) assert.equal(events.at(-1)?.instanceId, one.at(-1)?.instanceId);
      await tested.createVm({ id });
    });

    it("goes on when its stream is cut", async () => {
      tested.provider.knobs.createLatencyMs = 100;
      const id = await tested.createVm();
      for await (const event of tested.client.startVm({ sandboxId: id }, call()))
        if (event.stage === Stage.ACCEPTED) break;
      tested.provider.knobs.createLatencyMs = 0;
      assert.equal((await tested.startVm(id)).at(-1)?.stage, Stage.ADDRESS);
    });

    it("waits for an address that comes later", async () => {
      tested.provider.knobs.pollsToAddress = 2;
      const events = await tested.startVm(await tested.createVm());
      tested.provider.knobs.pollsToAddress = 0;
      assert.deepEqual(
        events.map((e) => e.stage),
        [Stage.ACCEPTED, Stage.INSTANCE, Stage.ADDRESS],
      );
    });

    it("tries again after an error that may pass, and makes one instance though an answer was lost", async () => {
      const before = tested.provider.created;
      tested.provider.knobs.createFaults.push(throttled());
      tested.provider.knobs.lostAnswers.push(throttled());
      assert.equal((await tested.startVm(await tested.createVm())).at(-1)?.stage, Stage.ADDRESS);
      assert.equal(tested.provider.created, before + 1);
    });

    it("fails with the provider's words, and removes an instance made although the create call failed", async () => {
      const living = await tested.instances();
      tested.provider.knobs.lostAnswers.push(noCapacity());
      const id = await tested.createVm();
      const [failure] = (await tested.startVm(id)).slice(-1);
      assert.equal(failure?.stage, Stage.FAILED);
      assert.deepEqual([failure?.code, failure?.message], ["resource_exhausted", "no m1.small left in zone a"]);
      await tested.until(async () => (await tested.instances()).length === living.length, "the leftover is removed");
      assert.equal((await tested.startVm(id)).at(-1)?.code, "resource_exhausted", "the failure is told again");
      await tested.client.stopVm({ sandboxId: id }, call());
      assert.equal(await tested.phase(id), "gone");
    });

    it("names the field that the provider cannot serve", async () => {
      const events = await tested.startVm(await tested.createVm({ gpus: 2 }));
      assert.deepEqual(
        [events.at(-1)?.code, events.at(-1)?.message],
        ["invalid_argument", "provider zero has no GPUs"],
      );
    });

    it("refuses an unknown sandbox and ids that are none", async () => {
      await assert.rejects(tested.startVm(newSandboxId()), { code: "not_found" });
      await assert.rejects(tested.startVm("../x" as SandboxId), { code: "invalid_argument", message: /"..\/x"/ });
      await assert.rejects(tested.client.createVm({ sandboxId: newSandboxId(), nodeId: "a b" }, call()), {
        code: "invalid_argument",
      });
      await assert.rejects(tested.client.createVm({ sandboxId: newSandboxId(), nodeId: "n", vcpus: -1 }, call()), {
        message: /vcpus is -1/,
      });
    });
  });

  describe("stopVm", () => {
    it("answers at once and deletes behind the answer", async () => {
      const { id, instance } = await started();
      tested.provider.knobs.pollsToGone = 2;
      tested.provider.knobs.deleteFaults.push(throttled(), new Fault("permission_denied", "credentials ran out"));
      const begun = performance.now();
      await tested.client.stopVm({ sandboxId: id, reason: "test" }, call());
      assert.ok(performance.now() - begun < 1000);
      await tested.client.stopVm({ sandboxId: id }, call());
      await gone(instance);
      tested.provider.knobs.pollsToGone = 0;
      await tested.until(async () => (await tested.phase(id)) === "gone", "gone");
      await assert.rejects(tested.createVm({ id }), { code: "failed_precondition" });
    });

    it("is success for an unknown sandbox and for one that was never started", async () => {
      await tested.client.stopVm({ sandboxId: newSandboxId() }, call());
      const id = await tested.createVm();
      await tested.client.stopVm({ sandboxId: id }, call());
      assert.equal(await tested.phase(id), "gone");
      assert.equal((await tested.startVm(id)).at(-1)?.stage, Stage.FAILED);
    });

    it("during a start ends that start and leaves no instance", async () => {
      const living = await tested.instances();
      for (const latencyMs of [0, 5, 50]) {
        tested.provider.knobs.createLatencyMs = latencyMs;
        const id = await tested.createVm();
        const start = tested.startVm(id);
        await new Promise((resolve) => setTimeout(resolve, latencyMs / 2));
        await tested.client.stopVm({ sandboxId: id }, call());
        const last = (await start).at(-1);
        assert.ok(
          last?.stage === Stage.FAILED || (latencyMs < 50 && last?.stage === Stage.ADDRESS),
          `stage ${last?.stage}`,
        );
        await tested.until(async () => (await tested.phase(id)) === "gone", "gone");
      }
      tested.provider.knobs.createLatencyMs = 0;
      assert.deepEqual(await tested.instances(), living);
    });
  });

  describe("signGuest", () => {
    const { keyPem } = newKeyPair();
    const csrPem = makeCsr(keyPem, "guest");
    const line = (pem: string): string => `[ 1.0] booted\nkata-remote: guest key sha256:${spkiFingerprint(pem)}\n`;

    it("vouches by the console where that shows the key, and signs the same key again", async () => {
      const { id } = await started();
      tested.provider.knobs.console = line(keyPem);
      const signed = await tested.client.signGuest({ sandboxId: id, csrPem }, call());
      assert.equal(signed.verifiedBy, "console");
      tested.provider.knobs.console = undefined;
      assert.equal((await tested.client.signGuest({ sandboxId: id, csrPem }, call())).verifiedBy, "console");
      await tested.client.reportReady({ sandboxId: id }, call());
      await tested.client.reportReady({ sandboxId: id }, call());
      assert.equal(await tested.phase(id), "ready");
    });

    it("tells once of a confidential pod that may have the node's root file systems", async () => {
      const { id } = await started();
      const csr = makeCsr(newKeyPair().keyPem, "guest");
      tested.provider.knobs.console = undefined;
      await tested.client.signGuest({ sandboxId: id, csrPem: csr }, call());
      await tested.client.reportReady({ sandboxId: id, nodeRootfsAllowed: true }, call());
      await tested.client.reportReady({ sandboxId: id, nodeRootfsAllowed: true }, call());
      const text = await (await fetch(`${tested.rest}/v1/events`)).text();
      assert.equal(text.match(/NodeRootfsAllowed/g)?.length, 1);
      assert.ok(text.includes(id));
    });

    it("waits for a console that lags behind, and falls back to the address", async () => {
      const { id } = await started();
      tested.provider.knobs.console = "[ 0.1] booting\n";
      const signing = tested.client.signGuest({ sandboxId: id, csrPem }, call());
      await new Promise((resolve) => setTimeout(resolve, 50));
      tested.provider.knobs.console += line(keyPem);
      assert.equal((await signing).verifiedBy, "console");
      for (const text of [undefined, "no fingerprint here"]) {
        tested.provider.knobs.console = text;
        const other = await started();
        assert.equal((await tested.client.signGuest({ sandboxId: other.id, csrPem }, call())).verifiedBy, "address");
      }
      tested.provider.knobs.console = undefined;
    });

    it("refuses a key that the console contradicts; only its first line counts", async () => {
      const { id } = await started();
      tested.provider.knobs.console = line(newKeyPair().keyPem) + line(keyPem);
      await assert.rejects(tested.client.signGuest({ sandboxId: id, csrPem }, call()), { code: "permission_denied" });
      tested.provider.knobs.console = undefined;
    });

    it("refuses a second claimant, also when both come at once", async () => {
      const { id } = await started();
      const requests = [csrPem, makeCsr(newKeyPair().keyPem, "guest"), makeCsr(newKeyPair().keyPem, "guest")];
      const outcomes = await Promise.allSettled(
        requests.map((r) => tested.client.signGuest({ sandboxId: id, csrPem: r }, call())),
      );
      assert.equal(outcomes.filter((o) => o.status === "fulfilled").length, 1);
      for (const outcome of outcomes)
        if (outcome.status === "rejected") assert.equal((outcome.reason as Fault).code, "already_exists");
    });

    it("refuses sandboxes that have no VM", async () => {
      const id = await tested.createVm();
      await assert.rejects(tested.client.signGuest({ sandboxId: id, csrPem }, call()), { code: "failed_precondition" });
      await assert.rejects(tested.client.signGuest({ sandboxId: (await started()).id, csrPem: "x" }, call()), {
        code: "invalid_argument",
      });
    });
  });

  describe("syncNode", () => {
    const report = (nodeId: string, liveSandboxIds: string[], bootId = "boot-1") =>
      tested.client.syncNode({ nodeId, bootId, liveSandboxIds }, call());
    async function on(nodeId: string): Promise<{ id: SandboxId; instance: string }> {
      const id = await tested.createVm({ nodeId });
      return { id, instance: (await tested.startVm(id)).at(-1)?.instanceId ?? "" };
    }

    it("stops what the node does not name, and only that node's", async () => {
      const [kept, surplus, other] = [await on("node-a"), await on("node-a"), await on("node-b")];
      const unknown = newSandboxId();
      const answer = await report("node-a", [kept.id, unknown]);
      assert.deepEqual([answer.stoppingSandboxIds, answer.lostSandboxIds], [[surplus.id], [unknown]]);
      await gone(surplus.instance);
      const living = await tested.instances();
      assert.ok(living.includes(kept.instance) && living.includes(other.instance));
    });

    it("stops everything of a node that was rebooted, whatever it says", async () => {
      const [one, two] = [await on("node-c"), await on("node-c")];
      await report("node-c", [one.id, two.id]);
      const answer = await report("node-c", [one.id], "boot-2");
      assert.deepEqual(new Set(answer.stoppingSandboxIds), new Set([one.id, two.id]));
      await gone(one.instance);
      await gone(two.instance);
      await assert.rejects(report("node-c", [], ""), { code: "invalid_argument" });
    });
  });

  it("tells the node of an instance that ended by itself, also when it asks later", async () => {
    const { id, instance } = await started();
    const watch = tested.client.watchVm({ nodeId: tested.nodeId }, call())[Symbol.asyncIterator]();
    const next = watch.next();
    tested.provider.fail(instance, "host failure");
    assert.deepEqual((await next).value, {
      sandboxId: id,
      instanceId: instance,
      reason: "the instance failed: host failure",
      _unknownFields: {},
    });
    await watch.return?.();
    for await (const event of tested.client.watchVm({ nodeId: tested.nodeId }, call())) {
      assert.equal(event.sandboxId, id);
      break;
    }
    await tested.client.stopVm({ sandboxId: id }, call());
    await gone(instance);
  });

  it("tells of an instance that was deleted from outside", async () => {
    const { id, instance } = await started();
    await tested.provider.deleteInstance(instance);
    await tested.until(async () => (await tested.phase(id)) === "lost", "lost");
  });

  it("is not started twice on one directory", async () => {
    await assert.rejects(AdaptorUnderTest.open({ dir: tested.dir }), {
      code: "failed_precondition",
      message: /another adaptor/,
    });
    assert.equal((await tested.client.version({}, call())).provider, "zero");
  });
});

describe("adaptor with a limit of two sandboxes", () => {
  it("refuses the third with the numbers, until one is stopped", async () => {
    await using tested = await AdaptorUnderTest.open({ config: { limits: { sandboxes: 2 } } });
    const [first] = [await tested.createVm(), await tested.createVm()];
    await assert.rejects(tested.createVm(), {
      code: "resource_exhausted",
      message: /all 2 sandboxes .*limits.sandboxes/,
    });
    await tested.createVm({ id: first });
    await tested.client.stopVm({ sandboxId: first }, call());
    await tested.createVm();
  });
});
