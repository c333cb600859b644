import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { AdaptorUnderTest, call } from "../../../test/fakes/adaptor-under-test.ts";
import { background } from "../../base/call.ts";
import { newSandboxId, type SandboxId } from "../../base/ids.ts";
import { type Logger, silentLogger } from "../../base/log.ts";
import type { OperationRecord } from "../store/index.ts";
import type { PodVmDeps } from "./deps.ts";
import { NEVER_READY, tellConsole } from "./tell-console.ts";

describe("the console of a VM whose start failed", { timeout: 120_000 }, () => {
  let tested: AdaptorUnderTest;
  let asked: string[];
  before(async () => {
    tested = await AdaptorUnderTest.open();
    Object.assign(tested.provider, {
      consoleOutput: async (id: string) => {
        asked.push(id);
        return "Kernel panic";
      },
    });
  });
  after(() => tested[Symbol.asyncDispose]());

  async function booted(): Promise<SandboxId> {
    const id = newSandboxId();
    const pod = { namespace: "default", name: "web", uid: "u" };
    await tested.client.createVm({ sandboxId: id, nodeId: "node-1", pod, containerdId: "c1" }, call());
    await tested.startVm(id);
    return id;
  }
  async function end(id: SandboxId): Promise<void> {
    await tested.client.stopVm({ sandboxId: id, reason: "test" }, call());
    await tested.until(async () => (await tested.instances()).length === 0, "its end");
  }

  it("is read before the VM goes, and not that of one which was ready", async () => {
    asked = [];
    const silent = await booted();
    const [instance] = await tested.instances();
    await end(silent);
    assert.deepEqual(asked, [instance]);

    const ready = await booted();
    await tested.client.reportReady({ sandboxId: ready }, call());
    await end(ready);
    assert.equal(asked.length, 1);
  });

  it("is in the log with the ids; that it cannot be read holds nothing up", async () => {
    const lines: Record<string, unknown>[] = [];
    const log: Logger = Object.assign(silentLogger(), {
      warn: (fields: Record<string, unknown>) => lines.push(fields),
    });
    const input = { reason: "too late", ...NEVER_READY };
    const operation = { attempt: 1, subject: "sb-1", input } as unknown as OperationRecord;
    const sandboxes = { get: async () => ({ id: "sb-1", instance: { id: "i-1" } }) };
    const store = { sandboxes } as unknown as PodVmDeps["store"];
    const tell = (provider: object, of = operation): Promise<void> =>
      tellConsole({ provider: Object.assign(Object.create(tested.provider), provider), store, log }, of, background());
    await tell({});
    assert.deepEqual(lines[0], { sandbox: "sb-1", instance: "i-1", reason: "too late", console: "Kernel panic" });
    await tell({ consoleOutput: () => Promise.reject(new Error("denied")) });
    assert.match(String(lines.at(1)?.err), /denied/);
    await tell({}, { ...operation, attempt: 2 });
    assert.equal(lines.length, 2, "once");
  });
});
