import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "../../base/silent-log.ts";
import type { NodeSession } from "../podvm/index.ts";
import type { SandboxStore } from "../store/index.ts";
import { LostNodes, type LostNodesDeps } from "./lost-nodes.ts";

const INTERVAL_MS = 1_000;
const GONE_MS = 60_000;

/** One node that reported at time 0 and never again. */
function world() {
  const clock = { ms: 0 };
  const gone: string[] = [];
  const away = { store: false };
  const session: NodeSession = {
    ...{ nodeId: "n1", bootId: "b1", formerBoots: [], session: "1", sequence: 1, epoch: "e1", live: 1 },
    reportedAt: new Date(0).toISOString(),
  };
  const deps: LostNodesDeps = {
    store: { sandboxes: {} as SandboxStore }, // only asked about nodes that were silent for a day
    sessions: {
      list: async () => {
        if (away.store) throw new Error("the store is away");
        return [session];
      },
      remove: async () => true,
    },
    recovery: { isOpen: async () => false },
    events: { note: () => undefined },
    log: silentLogger(),
    now: () => new Date(clock.ms),
    forget: async (nodeId) => gone.push(nodeId),
    ...{ intervalMs: INTERVAL_MS, silentMs: 10_000, goneMs: GONE_MS },
  };
  const loop = new LostNodes(deps);
  const call = { signal: new AbortController().signal };
  const passUntil = async (ms: number): Promise<void> => {
    for (; clock.ms < ms; clock.ms += INTERVAL_MS) await loop.reconcile(call).catch(() => undefined); // the store is away
  };
  return { clock, gone, away, passUntil };
}

describe("a node that is silent", () => {
  it("is taken for gone after the operator's time", async () => {
    const { gone, passUntil } = world();
    await passUntil(GONE_MS);
    assert.equal(gone.length, 0);
    await passUntil(GONE_MS + 3 * INTERVAL_MS);
    assert.ok(gone.includes("n1"));
  });

  it("is not, for time in which the adaptor was frozen", async () => {
    const { clock, gone, passUntil } = world();
    await passUntil(10_000);
    clock.ms = 10_000 + 2 * GONE_MS;
    await passUntil(clock.ms + GONE_MS);
    assert.equal(gone.length, 0);
    await passUntil(clock.ms + 3 * INTERVAL_MS);
    assert.ok(gone.includes("n1"));
  });

  it("is not, for time in which the store was away", async () => {
    const { clock, gone, away, passUntil } = world();
    away.store = true;
    await passUntil(2 * GONE_MS);
    away.store = false;
    await passUntil(clock.ms + GONE_MS);
    assert.equal(gone.length, 0);
  });
});
