import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { AdaptorUnderTest, call, type PodVmClient } from "../../test/fakes/adaptor-under-test.ts";
import { newSandboxId, type SandboxId } from "../base/ids.ts";
import { PodVmDefinition, StartVmEvent_Stage as Stage } from "../gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../grpc/index.ts";

const PROGRAM = new URL("../../test/fakes/crashing-adaptor.ts", import.meta.url).pathname;

interface Crash {
  readonly client: PodVmClient;
  readonly exited: Promise<unknown>;
  readonly child: ChildProcess;
}

/** An adaptor in a process of its own, that dies at an instant after it is ready. */
async function crashingAdaptor(dir: string, instant: number): Promise<Crash> {
  const child = spawn(process.execPath, [PROGRAM, dir, String(instant)], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  await Promise.race([
    once(lines, "line"),
    exited.then(() => Promise.reject(new Error("it died before it was ready"))),
  ]);
  const client = createClient(PodVmDefinition, { address: `unix://${join(dir, "adaptor.sock")}` });
  return { client, exited, child };
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
async function crashed({ child, exited, client }: Crash): Promise<boolean> {
  // Whatever it goes on with behind its answers is done well within this time.
  const survived = await Promise.race([exited.then(() => false), new Promise((r) => setTimeout(() => r(true), 300))]);
  client.close();
  child.kill("SIGKILL");
  await exited;
  return !survived;
}

describe("adaptor killed at any instant", { timeout: 300_000 }, () => {
  it("of a start: after a restart the VM is there exactly once, or the sandbox was never known", async () => {
    const instants = await atEveryInstant(async (dir, instant) => {
      const crash = await crashingAdaptor(dir, instant);
      const id = newSandboxId();
      const pod = { namespace: "default", name: "web", uid: "u" };
      const created = await answered(crash.client.createVm({ sandboxId: id, nodeId: "node-1", pod }, call()));
      const told = created && (await start(crash.client, id).catch(() => undefined)) === Stage.ADDRESS;
      const died = await crashed(crash);

      await using tested = await AdaptorUnderTest.open({ dir });
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
        const before = await crashingAdaptor(dir, 0);
        await before.client.createVm({ sandboxId: id, nodeId: "node-1" }, call());
        assert.equal(await start(before.client, id), Stage.ADDRESS);
        before.client.close();
        before.child.kill("SIGKILL");
        await before.exited;
      }
      const crash = await crashingAdaptor(dir, instant);
      const stopped = await answered(crash.client.stopVm({ sandboxId: id }, call()));
      const died = await crashed(crash);

      await using tested = await AdaptorUnderTest.open({ dir });
      if (!stopped) await tested.client.stopVm({ sandboxId: id }, call());
      await tested.until(async () => (await tested.instances()).length === 0, `instant ${instant}: gone`);
      await tested.until(async () => (await tested.phase(id)) === "gone", `instant ${instant}: the record says so`);
      return died;
    });
    assert.ok(instants >= 8, `only ${instants} instants`);
  });
});
