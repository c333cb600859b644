import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { withDeadline } from "../../base/call.ts";
import { silentLogger } from "../../base/log.ts";
import { type OperationStore, SqliteStore } from "../store/index.ts";
import { EmbeddedQueue } from "./embedded-queue.ts";

// What every queue promises is in test/conformance/queue.ts.
describe("embedded queue", { timeout: 60_000 }, () => {
  it("forgets no wish to look, at whatever instant of the last look it comes", async () => {
    const dir = await mkdtemp(join(tmpdir(), "queue-"));
    const store = await SqliteStore.open(join(dir, "store.sqlite"));
    try {
      // The end of one operation frees the room for the next: how many microtasks after it the running look ends is
      // moved through all possibilities.
      for (let delay = 0; delay < 40; delay++) {
        await using queue = new EmbeddedQueue({
          store: slowToSay(store.operations, delay),
          log: silentLogger(),
          now: () => new Date(),
        });
        queue.handle("start-vm", async () => undefined, {
          ...{ concurrency: 1, attempts: 1, priority: 1, timeoutMs: 10_000 },
        });
        const submitted = await Promise.all(
          ["a", "b", "c"].map((s) => queue.submit({ kind: "start-vm", subject: `${s}${delay}`, input: {} })),
        );
        await queue.start();
        for (const { id } of submitted) {
          const over = await queue.wait(id, withDeadline(5_000)).catch(() => undefined);
          assert.equal(over?.state, "done", `with ${delay} microtasks`);
        }
      }
    } finally {
      await store[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    }
  });
});

/** The store, whose nextWake comes late: as many microtasks after the next settlement. */
function slowToSay(store: OperationStore, microtasks: number): OperationStore {
  let settled = Promise.withResolvers<void>();
  return new Proxy(store, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      const method = value.bind(target) as (...args: unknown[]) => Promise<unknown>;
      if (key === "settle") {
        return async (...args: unknown[]) => {
          const result = await method(...args);
          settled.resolve();
          settled = Promise.withResolvers<void>();
          return result;
        };
      }
      if (key !== "nextWake") return method;
      return async (...args: unknown[]) => {
        const next = await method(...args);
        await Promise.race([settled.promise, new Promise((resolve) => setTimeout(resolve, 50))]);
        for (let i = 0; i < microtasks; i++) await undefined;
        return next;
      };
    },
  });
}
