import { join } from "node:path";
import { describe } from "node:test";
import type { InstanceId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import { openRemote } from "../../src/shim/hypervisor/index.ts";
import { AdaptorUnderTest } from "../fakes/adaptor-under-test.ts";
import { hypervisorConformance } from "./hypervisor.ts";

/** The node's half against the real adaptor, with a provider that costs nothing: over its socket, and in one process. */
for (const local of [false, true])
  describe(local ? "in one process" : "over a socket", () => hypervisorConformance("remote", () => open(local)));

async function open(local: boolean): ReturnType<Parameters<typeof hypervisorConformance>[1]> {
  const tested = await AdaptorUnderTest.open();
  const hypervisor = await openRemote({
    adaptor: local ? tested.nodeDoor : undefined,
    address: `unix://${tested.config.grpc.socketPath}`,
    ...{ nodeId: tested.nodeId, bootId: "boot-1", patienceMs: 5_000, log: silentLogger() },
    stateDir: join(tested.dir, "node"),
    runDir: join(tested.dir, "run"),
  });
  return {
    hypervisor,
    exists: async (id) => !["stopping", "gone", undefined].includes(await tested.phase(id)),
    boot: async () => undefined, // this provider has no console
    crash: async (id) => {
      const { instance } = await tested.json<{ instance: { id: InstanceId } }>(`/v1/sandboxes/${id}`);
      tested.provider.fail(instance.id, "kernel panic");
    },
    [Symbol.asyncDispose]: async () => {
      await hypervisor.close();
      await tested[Symbol.asyncDispose]();
    },
  };
}
