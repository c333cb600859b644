import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import { AdaptorUnderTest, call } from "../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../base/fault.ts";
import { newSandboxId, type SandboxId } from "../base/ids.ts";
import { StartVmEvent_Stage as Stage } from "../gen/kataremote/podvm/v1/podvm.ts";
import type { InstanceSpec, VolumeAttachment } from "../provider/index.ts";

describe("a pod with volumes that outlive its VM", { timeout: 120_000 }, () => {
  let tested: AdaptorUnderTest;
  let done: string[];
  let attachFaults: Fault[];
  let detachFaults: Fault[];
  let specs: InstanceSpec[];
  const volumes: VolumeAttachment = {
    check: (id) => {
      if (!id.startsWith("vol-")) throw new Fault("invalid_argument", `"${id}" is no volume`);
    },
    attach: async (_id, volumeIds) => {
      const fault = attachFaults.shift();
      if (fault !== undefined) throw fault;
      done.push(`attach ${volumeIds.join(" ")}`);
    },
    detach: async (_id, volumeIds) => {
      done.push(`detach ${volumeIds.join(" ")}`);
      const fault = detachFaults.shift();
      if (fault !== undefined) throw fault;
    },
  };
  before(async () => {
    tested = await AdaptorUnderTest.open();
    const { provider } = tested;
    const create = provider.createInstance.bind(provider);
    const remove = provider.deleteInstance.bind(provider);
    Object.assign(provider, {
      createInstance: (...args: Parameters<typeof create>) => {
        specs.push(args[0]);
        return create(...args);
      },
      deleteInstance: (...args: Parameters<typeof remove>) => {
        done.push("delete");
        return remove(...args);
      },
    });
  });
  after(() => tested[Symbol.asyncDispose]());
  beforeEach(() => {
    done = [];
    attachFaults = [];
    detachFaults = [];
    specs = [];
    Object.assign(tested.provider, { volumes });
  });

  async function createVm(wanted: readonly string[]): Promise<SandboxId> {
    const id = newSandboxId();
    const pod = { namespace: "default", name: "web", uid: "u" };
    await tested.client.createVm(
      { sandboxId: id, nodeId: "node-1", pod, containerdId: "c1", volumes: [...wanted] },
      call(),
    );
    return id;
  }
  async function stop(id: SandboxId): Promise<void> {
    await tested.client.stopVm({ sandboxId: id, reason: "test" }, call());
    await tested.until(async () => done.includes("delete") && (await tested.instances()).length === 0, "its end");
  }

  it("is told to its VM's creation, has them before the node is told an address, and lets go of them first", async () => {
    const id = await createVm(["vol-1", "vol-2"]);
    const events = await tested.startVm(id);
    assert.equal(events.at(-1)?.stage, Stage.ADDRESS);
    assert.deepEqual(done, ["attach vol-1 vol-2"]);
    assert.deepEqual(specs[0]?.volumes, ["vol-1", "vol-2"]);
    assert.match(Buffer.from(specs[0]?.userData ?? []).toString(), /\{"scratch":false,"volumes":\["vol-1","vol-2"\]\}/);
    await stop(id);
    assert.deepEqual(done.slice(1, 3), ["detach vol-1 vol-2", "delete"]);
  });

  it("waits while one is attached elsewhere, and the node is told why", async () => {
    attachFaults = [new Fault("unavailable", "volume vol-1 is attached to i-1 still", {}, { retryable: true })];
    const id = await createVm(["vol-1"]);
    const events = await tested.startVm(id);
    assert.match(events.find((e) => e.stage === Stage.WAITING)?.message ?? "", /attached to i-1 still/);
    assert.equal(
      events.findIndex((e) => e.stage === Stage.ADDRESS),
      events.length - 1,
    );
    assert.equal(specs.length, 1, "the VM is made once");
    await stop(id);
  });

  it("fails, and its VM is removed, when one cannot be had at all", async () => {
    attachFaults = [new Fault("invalid_argument", "volume vol-1 is not there")];
    const id = await createVm(["vol-1"]);
    const events = await tested.startVm(id);
    assert.deepEqual([events.at(-1)?.stage, events.some((e) => e.stage === Stage.ADDRESS)], [Stage.FAILED, false]);
    assert.match(events.at(-1)?.message ?? "", /vol-1 is not there/);
    await stop(id);
  });

  it("ends although the cloud does not take them back: the VM's end does it", async () => {
    detachFaults = [new Fault("unavailable", "the cloud is away")];
    const id = await createVm(["vol-1"]);
    await tested.startVm(id);
    await stop(id);
    assert.deepEqual(done.slice(0, 3), ["attach vol-1", "detach vol-1", "delete"]);
  });

  it("is refused before anything is made, where there are none and for what is none", async () => {
    await assert.rejects(createVm(["disk-1"]), { code: "invalid_argument", message: /"disk-1" is no volume/ });
    await assert.rejects(createVm(["vol-1", "vol-1"]), { code: "invalid_argument", message: /each once/ });
    Object.assign(tested.provider, { volumes: undefined });
    await assert.rejects(createVm(["vol-1"]), {
      ...{ code: "failed_precondition", message: /provider zero attaches no volumes.*vol-1/ },
    });
    assert.deepEqual([done, specs], [[], []]);
  });
});
