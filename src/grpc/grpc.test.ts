import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { background, type Call, withDeadline } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import { PodVmDefinition, StartVmEvent, SyncNodeResponse } from "../gen/kataremote/podvm/v1/podvm.ts";
import { createClient, createLocalClient, type Handlers, implement, type ServiceClient } from "./index.ts";

for (const way of ["over a unix socket", "in this process"] as const)
  describe(`a service ${way}`, () => {
    const server = new Server();
    const errors: string[] = [];
    const streamEnded = deferred<void>();
    const streamLeft = deferred<void>();
    let dir: string;
    let client: ServiceClient<typeof PodVmDefinition>;
    const hang = (call: Call): Promise<never> =>
      new Promise((_, reject) => call.signal.addEventListener("abort", () => reject(new Fault("cancelled", "gone"))));
    const handlers: Handlers<typeof PodVmDefinition> = {
      version: async () => ({ version: "7", provider: "test" }),
      enrollNode: async () => {
        throw new Fault("permission_denied", "node n1 may not enroll", {}, { cause: new Error("no certificate") });
      },
      createVm: async (request) => {
        assert.equal(request.memoryMib, 512n);
        assert.equal(request.pod?.name, "web");
        return {};
      },
      async *startVm(request, call) {
        try {
          yield StartVmEvent.fromPartial({ stage: 1, instanceId: request.sandboxId });
          yield StartVmEvent.fromPartial({ stage: 3, addresses: ["10.0.0.1"] });
          if (request.sandboxId === "fails") throw new Fault("resource_exhausted", "no room", {}, { retryable: true });
          if (request.sandboxId === "hangs") await hang(call).finally(() => streamEnded.resolve());
          if (request.sandboxId === "left") await hang(call);
        } finally {
          if (request.sandboxId === "left") streamLeft.resolve();
        }
      },
      stopVm: async (_, call) => hang(call),
      async *watchVm() {
        for (let i = 0; i < 20_000; i++) yield { sandboxId: String(i), instanceId: "x".repeat(100), reason: "" };
      },
      identifyStockGuest: async () => {
        throw new Error("unused");
      },
      pullSecrets: async () => ({ authJson: "" }),
      signGuest: async () => Promise.reject(new RangeError("bug")),
      reportReady: async () => ({}),
      syncNode: async () => SyncNodeResponse.fromPartial({}),
    };

    before(async () => {
      dir = await mkdtemp(join(tmpdir(), "grpc-"));
      server.addService(...implement(PodVmDefinition, handlers, (method) => errors.push(method)));
      const address = `unix://${join(dir, "s.sock")}`;
      await new Promise<void>((resolve, reject) =>
        server.bindAsync(address, ServerCredentials.createInsecure(), (e) => (e ? reject(e) : resolve())),
      );
      const log = (method: string): number => errors.push(method);
      const local = way === "in this process";
      client = local ? createLocalClient(PodVmDefinition, handlers, log) : createClient(PodVmDefinition, { address });
    });
    after(async () => {
      client.close();
      server.forceShutdown();
      await rm(dir, { recursive: true });
    });

    it("carries a request and its answer", async () => {
      assert.equal((await client.version({}, background())).version, "7");
      await client.createVm({ sandboxId: "a", memoryMib: 512n, pod: { name: "web" } }, background());
    });

    it("brings a Fault over with code, causes and retryable", async () => {
      await assert.rejects(client.enrollNode({}, background()), (e: Fault) => {
        assert.equal(e.code, "permission_denied");
        assert.equal(e.message, "node n1 may not enroll: no certificate");
        assert.equal(e.retryable, false);
        return true;
      });
      await assert.rejects(client.signGuest({}, background()), { code: "internal", message: "bug" });
      assert.deepEqual(errors.splice(0), ["EnrollNode", "SignGuest"]);
    });

    it("streams, and ends a stream with the Fault it failed with", async () => {
      const stages: number[] = [];
      await assert.rejects(
        async () => {
          for await (const e of client.startVm({ sandboxId: "fails" }, background())) stages.push(e.stage);
        },
        { code: "resource_exhausted", retryable: true },
      );
      assert.deepEqual(stages, [1, 3]);
    });

    it("ends the handler's call when the client gives up", async () => {
      await assert.rejects(client.stopVm({}, withDeadline(50)), { code: "deadline_exceeded" });
      const stages: number[] = [];
      await assert.rejects(
        async () => {
          for await (const e of client.startVm({ sandboxId: "hangs" }, withDeadline(100))) stages.push(e.stage);
        },
        { code: "deadline_exceeded" },
      );
      assert.deepEqual(stages, [1, 3]);
      await streamEnded.promise;
      for await (const e of client.startVm({ sandboxId: "left" }, background())) if (e.stage === 1) break;
      await streamLeft.promise;
    });

    it("streams more than the window holds", async () => {
      let count = 0;
      for await (const e of client.watchVm({}, background())) assert.equal(e.sandboxId, String(count++));
      assert.equal(count, 20_000);
    });

    it("takes nothing after it is closed, and a local one ends what waits", async () => {
      if (way === "in this process") {
        const waiting = assert.rejects(client.stopVm({}, background()), { code: "unavailable" });
        client.close();
        await waiting;
      } else client.close();
      await assert.rejects(client.version({}, background()));
    });
  });

describe("a client without a service", () => {
  it("says unavailable when nobody listens, and refuses plain text over TCP", async () => {
    const nobody = createClient(PodVmDefinition, { address: `unix://${join(tmpdir(), "grpc-none.sock")}` });
    await assert.rejects(nobody.version({}, background()), { code: "unavailable", retryable: true });
    nobody.close();
    assert.throws(() => createClient(PodVmDefinition, { address: "127.0.0.1:1" }), { code: "invalid_argument" });
  });
});
