import { once } from "node:events";
import { request } from "node:http";
import { join } from "node:path";
import { connect } from "node:tls";
import { withDeadline } from "../../src/base/call.ts";
import { PodVmDefinition } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import { makeCsr, newKeyPair, nodeCommonName } from "../../src/identity/index.ts";
import { TtrpcClient } from "../../src/ttrpc/index.ts";
import type { PodWorld } from "./pod-world.ts";

/** Where a VM with an address of its own listens. Source: peer-pods wire contract; `Instance.tunnelPort` is for others. */
const TUNNEL_PORT = 15150;

interface InstanceAddress {
  readonly id: string;
  readonly addresses: readonly string[];
  readonly tunnelPort?: number;
}

/**
 * A second connection to a running pod's VM, beside the node daemon's and in its name: the adaptor signs a key for the
 * same node, and the guest takes every connection of its node.
 */
export async function connectToVm(
  world: PodWorld,
  nodeId: string,
  sandboxId: string,
  instanceId: string,
): Promise<TtrpcClient> {
  const { runDir } = world.installation;
  const podVm = createClient(PodVmDefinition, { address: `unix://${join(runDir, "adaptor.sock")}` });
  try {
    const key = newKeyPair().keyPem;
    const csrPem = makeCsr(key, nodeCommonName(nodeId));
    const { certificatePem: cert, caPem: ca } = await podVm.enrollNode({ nodeId, csrPem }, withDeadline(10_000));
    const { instances } = (await getJson(join(runDir, "rest.sock"), "/v1/instances")) as {
      instances: InstanceAddress[];
    };
    const instance = instances.find((i) => i.id === instanceId);
    const host = instance?.addresses[0];
    const port = instance?.tunnelPort ?? TUNNEL_PORT;
    if (host === undefined) throw new Error(`the adaptor knows no address of ${instanceId}`);
    const socket = connect({ ...{ host, port, key, cert, ca }, servername: sandboxId, minVersion: "TLSv1.3" });
    socket.setNoDelay(true);
    await once(socket, "secureConnect");
    return new TtrpcClient(socket);
  } finally {
    podVm.close();
  }
}

function getJson(socketPath: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, timeout: 10_000 }, (reply) => {
      let body = "";
      reply.setEncoding("utf8").on("data", (d: string) => {
        body += d;
      });
      reply.on("error", reject);
      reply.on("end", () => (reply.statusCode === 200 ? resolve(JSON.parse(body)) : reject(new Error(body))));
    });
    sent.on("error", reject);
    sent.end();
  });
}
