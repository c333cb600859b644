import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ImagesDefinition } from "../../gen/containerd/services/images/v1/images.ts";
import { createClient } from "../../grpc/index.ts";

/** An image as the node's containerd knows it. */
export interface NodeImage {
  /** A name that can be pulled. */
  readonly name: string;
  /** Of its index or manifest; absent: containerd does not know the image. */
  readonly digest?: string;
}

/** Ids and bare digests, which containerd keeps as names too. */
const NO_NAME = /^(sha256:)?[0-9a-f]{64}$/;

/**
 * Asks containerd what it found an image's name to mean, so that the guest pulls that and nothing else.
 * @throws Fault not_found when the name is an id and no name leads to the same image; unavailable
 */
export async function nodeImage(
  containerd: { readonly address: string; readonly namespace: string },
  name: string,
  call: Call,
): Promise<NodeImage> {
  const client = createClient(ImagesDefinition, {
    address: `unix://${containerd.address}`,
    metadata: { "containerd-namespace": containerd.namespace },
  });
  try {
    const digest = await client.get({ name }, call).then(
      ({ image }) => image?.target?.digest ?? "",
      (e: unknown) => {
        if (e instanceof Fault && e.code === "not_found") return "";
        throw e;
      },
    );
    if (!NO_NAME.test(name)) return digest === "" ? { name } : { name, digest };
    const { images } =
      digest === "" ? { images: [] } : await client.list({ filters: [`target.digest==${digest}`] }, call);
    const named = images.map((i) => i.name).find((n) => !NO_NAME.test(n));
    if (named !== undefined) return { name: named, digest };
    throw new Fault("not_found", `containerd knows image ${name} by no name that the pod VM could pull`);
  } finally {
    client.close();
  }
}
