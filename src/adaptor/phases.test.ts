import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { AdaptorUnderTest, call } from "../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../base/fault.ts";
import { type InstanceId, newSandboxId, type SandboxId } from "../base/ids.ts";
import { makeCsr, newKeyPair } from "../identity/index.ts";
import { type AdaptorStore, mayFollow, type Phase } from "./store/index.ts";

const EVENTS = [
  ...["create", "start", "stop", "ready", "sign", "sync", "syncNone", "reboot"],
  ...["deleteOutside", "failInstance", "faultCreate", "slowDelete", "pause"],
] as const;

/** What an event may be refused with: anything else is a bug. */
const REFUSALS = new Set(["not_found", "failed_precondition", "already_exists", "resource_exhausted", "unavailable"]);

/** The store, which notes every step that a record takes. */
function watched(store: AdaptorStore, steps: string[]): AdaptorStore {
  const phases = new Map<SandboxId, Phase>();
  store.sandboxes.watch(({ id, phase }) => {
    const before = phases.get(id) ?? phase;
    if (!mayFollow(before, phase)) steps.push(`${before} -> ${phase}`);
    phases.set(id, phase);
  });
  return store;
}

describe("any order of events", { timeout: 180_000 }, () => {
  it("takes no sandbox to where it must not go, fails with a reason, and leaves nothing behind", async () => {
    const csrPem = makeCsr(newKeyPair().keyPem, "");
    const order = fc.array(fc.tuple(fc.constantFrom(...EVENTS), fc.nat(2)), { minLength: 3, maxLength: 14 });
    await fc.assert(
      fc.asyncProperty(order, async (events) => {
        const illegal: string[] = [];
        const wrapStore = (store: AdaptorStore) => watched(store, illegal);
        const breaker = { podFailures: 1000, classFailures: 1000 };
        await using tested = await AdaptorUnderTest.open({ deps: { wrapStore }, config: { capacity: { breaker } } });
        const { client, provider, nodeId } = tested;
        const ids = [newSandboxId(), newSandboxId(), newSandboxId()];
        let boot = 1;
        const instanceOf = async (id: SandboxId): Promise<InstanceId | undefined> => {
          const record = await tested.json<{ instance?: { id: InstanceId } }>(`/v1/sandboxes/${id}`);
          return record.instance?.id;
        };
        const act = async (event: (typeof EVENTS)[number], id: SandboxId): Promise<unknown> => {
          switch (event) {
            case "create":
              return tested.createVm({ id, name: id });
            case "start":
              return tested.startVm(id);
            case "stop":
              return client.stopVm({ sandboxId: id }, call());
            case "ready":
              return client.reportReady({ sandboxId: id }, call());
            case "sign":
              return client.signGuest({ sandboxId: id, csrPem }, call());
            case "sync":
              return client.syncNode({ nodeId, bootId: `b${boot}`, liveSandboxIds: ids }, call());
            case "syncNone":
              return client.syncNode({ nodeId, bootId: `b${boot}` }, call());
            case "reboot":
              boot++;
              return client.syncNode({ nodeId, bootId: `b${boot}`, liveSandboxIds: ids }, call());
            case "deleteOutside": {
              const instance = await instanceOf(id);
              return instance === undefined ? undefined : provider.deleteInstance(instance);
            }
            case "failInstance": {
              const instance = await instanceOf(id);
              return instance === undefined ? undefined : provider.fail(instance, "panic");
            }
            case "faultCreate":
              return provider.knobs.createFaults.push(new Fault("resource_exhausted", "no room"));
            case "slowDelete":
              provider.knobs.pollsToGone = 1;
              return undefined;
            default:
              return new Promise((resolve) => setTimeout(resolve, 60));
          }
        };
        for (const [event, which] of events) {
          const running = act(event, ids[which] as SandboxId).catch((e: { code: string }) => {
            assert.ok(REFUSALS.has(e.code), `${event}: ${String(e)}`);
          });
          if (event !== "start" || which === 0)
            await running; // others of its kind may overlap with what follows
          else running.catch(() => undefined);
        }
        for (const id of ids) await client.stopVm({ sandboxId: id }, call());
        await tested.until(async () => (await tested.instances()).length === 0, `all gone after ${String(events)}`);
        assert.deepEqual(illegal, []);
      }),
      { numRuns: 25, endOnFailure: true },
    );
  });
});
