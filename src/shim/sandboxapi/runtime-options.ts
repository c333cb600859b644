import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { StoreDefinition } from "../../gen/containerd/services/sandbox/v1/sandbox.ts";
import type { Any } from "../../gen/google/protobuf/any.ts";
import { createClient } from "../../grpc/index.ts";

/**
 * Asks containerd for the options of a pod's runtime, which CreateSandbox does not carry.
 * @param address containerd's own; "": nobody can be asked
 * @throws Fault unavailable
 * Source: containerd plugins/sandbox/controller.go and services/sandbox: they go to the shim's `start` only.
 */
export async function sandboxRuntimeOptions(
  { address, namespace }: { readonly address: string; readonly namespace: string },
  sandboxId: string,
  call: Call,
): Promise<Any | undefined> {
  if (address === "") return undefined;
  const client = createClient(StoreDefinition, {
    address: `unix://${address}`,
    metadata: { "containerd-namespace": namespace },
  });
  try {
    return (await client.get({ sandboxId }, call)).sandbox?.runtime?.options;
  } catch (e) {
    // Whoever calls is no CRI, or a containerd without a store.
    if (e instanceof Fault && (e.code === "not_found" || e.code === "unimplemented")) return undefined;
    throw e;
  } finally {
    client.close();
  }
}
