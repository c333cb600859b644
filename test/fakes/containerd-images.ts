import { Server, ServerCredentials } from "@grpc/grpc-js";
import { Fault } from "../../src/base/fault.ts";
import { ImagesDefinition } from "../../src/gen/containerd/services/images/v1/images.ts";
import { implement } from "../../src/grpc/index.ts";

/** containerd's image service on a socket, with images by name and digest. */
export async function serveImages(socketPath: string, digests: ReadonlyMap<string, string>): Promise<AsyncDisposable> {
  const server = new Server();
  const image = (name: string) => ({ name, target: { mediaType: "", digest: digests.get(name) ?? "", size: 0n } });
  server.addService(
    ...implement(ImagesDefinition, {
      get: async ({ name }) => {
        if (!digests.has(name)) throw new Fault("not_found", "no such image");
        return { image: image(name) };
      },
      list: async ({ filters }) => ({
        images: [...digests]
          .filter(([, digest]) => filters[0] === `target.digest==${digest}`)
          .map(([name]) => image(name)),
      }),
    }),
  );
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix://${socketPath}`, ServerCredentials.createInsecure(), (e) => (e ? reject(e) : resolve())),
  );
  return { [Symbol.asyncDispose]: async () => server.forceShutdown() };
}
