import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AdaptorUnderTest, call } from "../../test/fakes/adaptor-under-test.ts";
import { deferred } from "../base/deferred.ts";
import type { AdaptorStore } from "./store/index.ts";

/** The store, which notes a node's report only when it is let go. */
function slowReports(store: AdaptorStore, go: Promise<void>): AdaptorStore {
  const slow = async (...change: Parameters<AdaptorStore["facts"]["swap"]>): Promise<boolean> => {
    if (change[0].startsWith("node:")) await go;
    return store.facts.swap(...change);
  };
  const facts = new Proxy(store.facts, {
    get(object, key) {
      const value: unknown = key === "swap" ? slow : Reflect.get(object, key, object);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
  return new Proxy(store, {
    get(object, key) {
      if (key === "facts") return facts;
      const value: unknown = Reflect.get(object, key, object);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
}

describe("a node's report that was given up on", { timeout: 60_000 }, () => {
  for (const [how, deadlineMs] of [
    ["the node gave up", 200],
    ["the node still waits", 20_000],
  ] as const) {
    it(`stops no sandbox that was made after it (${how})`, async () => {
      const go = deferred<void>();
      const deps = { wrapStore: (store: AdaptorStore) => slowReports(store, go.promise) };
      await using tested = await AdaptorUnderTest.open({ deps });
      const report = { nodeId: tested.nodeId, bootId: "boot-1", liveSandboxIds: [] };
      const syncing = tested.client.syncNode(report, call(deadlineMs)).catch(() => undefined);
      // A report that stands still is no reason to keep the next pod waiting for ever: the node makes it.
      await new Promise((resolve) => setTimeout(resolve, 300));
      const id = await tested.createVm();
      await tested.startVm(id);
      go.resolve();
      await syncing;
      await new Promise((resolve) => setTimeout(resolve, 200)); // whatever the late report does, it does now
      assert.equal(await tested.phase(id), "booting");
      assert.equal((await tested.instances()).length, 1);
    });
  }
});
