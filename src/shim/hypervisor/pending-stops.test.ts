import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { type PendingStop, PendingStops } from "./pending-stops.ts";

describe("stops that could not be delivered", { timeout: 20_000 }, () => {
  it("name the instance though a second stop of the sandbox does not, also for the next daemon", async () => {
    const dir = await mkdtemp(join(tmpdir(), "stops-"));
    const away = async (): Promise<void> => {
      throw new Fault("unavailable", "the adaptor is away");
    };
    try {
      const log = silentLogger();
      const id = newSandboxId();
      const stops = await PendingStops.open({ dir, log, deliver: away });
      await stops.submit({ id, reason: "pod ended", instanceId: "i-1" }, withDeadline(1_000));
      await stops.submit({ id, reason: "containerd asked to clean it up" }, withDeadline(1_000));
      await stops.close();
      const delivered: PendingStop[] = [];
      const next = await PendingStops.open({ dir, log, deliver: async (stop) => void delivered.push(stop) });
      while (delivered.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      assert.deepEqual(delivered, [{ id, reason: "containerd asked to clean it up", instanceId: "i-1" }]);
      await next.close();
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it("leave no file when one try delivers what another one gives up on", async () => {
    const dir = await mkdtemp(join(tmpdir(), "stops-"));
    const tries: PromiseWithResolvers<void>[] = [];
    const deliver = (): Promise<void> => {
      const next = Promise.withResolvers<void>();
      tries.push(next);
      return next.promise;
    };
    const tried = async (count: number): Promise<void> => {
      while (tries.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    const timeOut = new Fault("deadline_exceeded", "no answer", {}, { retryable: true });
    try {
      const stops = await PendingStops.open({ dir, log: silentLogger(), deliver });
      const id = newSandboxId();
      const first = stops.submit({ id, reason: "pod ended" }, withDeadline(5_000));
      await tried(1);
      tries[0]?.reject(timeOut);
      await first;
      await tried(2); // in the background
      const second = stops.submit({ id, reason: "clean-up" }, withDeadline(5_000));
      tries[1]?.resolve(); // while the second one is being written
      await tried(3);
      tries[2]?.reject(timeOut);
      await second;
      assert.deepEqual(await readdir(dir), []);
      await stops.close();
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
