import { Server, ServerCredentials } from "@grpc/grpc-js";
import { Fault } from "../../src/base/fault.ts";
import { StoreDefinition } from "../../src/gen/containerd/services/sandbox/v1/sandbox.ts";
import type { Any } from "../../src/gen/google/protobuf/any.ts";
import { implement } from "../../src/grpc/index.ts";

/** containerd's sandbox store on a socket, with the runtimes' options by sandbox id. */
export async function serveSandboxes(socketPath: string, options: ReadonlyMap<string, Any>): Promise<AsyncDisposable> {
  const server = new Server();
  server.addService(
    ...implement(StoreDefinition, {
      get: async ({ sandboxId }) => {
        const found = options.get(sandboxId);
        if (found === undefined) throw new Fault("not_found", "no such sandbox");
        return { sandbox: { sandboxId, runtime: { name: "r", options: found }, sandboxer: "shim" } };
      },
    }),
  );
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix://${socketPath}`, ServerCredentials.createInsecure(), (e) => (e ? reject(e) : resolve())),
  );
  return { [Symbol.asyncDispose]: async () => server.forceShutdown() };
}
