import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { withDeadline } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { GuestNetwork } from "../../src/guest/net/index.ts";
import { openPodNetwork, PodNetworkConfig } from "../../src/node/podnetwork/index.ts";
import { until } from "../e2e/harness/processes.ts";
import { type Running, start } from "../e2e/harness/run-command.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";
import type { BenchScope } from "./bench-scope.ts";
import type { NetworkSample } from "./network-client.ts";

const STREAM_PORT = 7008;
const ECHO_PORT = 7007;
/** In the worker's namespace; 198.18.0.0/15 is kept for measurements. */
const UNDERLAY = { worker: "198.18.0.1", guest: "198.18.0.2" } as const;
const PODS = { gateway: "198.19.0.1", plain: "198.19.0.7", carried: "198.19.0.8" } as const;

/**
 * A worker with two pods on a bridge, as namespaces: one as the CNI made it, one carried by VXLAN into a guest, which is a
 * namespace too. Both ends run on this machine's processors, so that the tunnel is what differs.
 */
export class PodNetworkSpaces implements AsyncDisposable {
  /** Programs run in them. */
  readonly #spaces: NetworkNamespaces;
  readonly #servers: Running[] = [];
  readonly #owned: AsyncDisposableStack;

  private constructor(spaces: NetworkNamespaces, owned: AsyncDisposableStack) {
    this.#spaces = spaces;
    this.#owned = owned;
  }

  static async open(scope: BenchScope): Promise<PodNetworkSpaces> {
    await using owned = new AsyncDisposableStack();
    const spaces = owned.use(new NetworkNamespaces());
    for (const name of ["worker", "guest", "plain", "carried", "podns"]) await spaces.add(name);
    await spaces.join("worker", "vm", "guest", "eth0");
    await spaces.ip("worker", `address add ${UNDERLAY.worker}/24 dev vm`);
    await spaces.ip("guest", `address add ${UNDERLAY.guest}/24 dev eth0`);
    await spaces.ip("worker", "link add br0 type bridge");
    await spaces.ip("worker", "link set br0 up");
    await spaces.ip("worker", `address add ${PODS.gateway}/24 dev br0`);
    for (const pod of ["plain", "carried"] as const) {
      await spaces.join(pod, "eth0", "worker", pod);
      await spaces.ip("worker", `link set ${pod} master br0`);
      await spaces.ip(pod, `address add ${PODS[pod]}/24 dev eth0`);
      await spaces.ip(pod, `route add default via ${PODS.gateway}`);
    }
    await carry(spaces, join(scope.folder, "pod-network"));
    const opened = new PodNetworkSpaces(spaces, owned.move());
    try {
      for (const name of ["plain", "podns"]) await opened.#serve(name);
    } catch (e) {
      await opened[Symbol.asyncDispose]();
      throw e;
    }
    return opened;
  }

  /** One look from the worker at one of the pods. */
  async sample(pod: "plain" | "carried", ms: number, trips: number): Promise<NetworkSample> {
    const script = join(import.meta.dirname, "network-client.ts");
    const args = [PODS[pod], STREAM_PORT, ECHO_PORT, ms, trips].map(String);
    return JSON.parse(await this.#spaces.run("worker", process.execPath, [script, ...args])) as NetworkSample;
  }

  async #serve(name: string): Promise<void> {
    const script = join(import.meta.dirname, "network-server.ts");
    const words = [process.execPath, script, String(STREAM_PORT), String(ECHO_PORT)];
    const through = [`--net=${this.#spaces.path(name)}`, "--", ...words];
    const server = start("nsenter", through, { input: new PassThrough(), timeoutMs: 600_000 });
    this.#servers.push(server);
    await until(
      "the far end to listen",
      20_000,
      () => server.output().includes("ready"),
      () => server.output(),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child, done } of this.#servers) {
      child.stdin?.end();
      await done;
    }
    await this.#owned.disposeAsync();
  }
}

/** Both halves, the node's and the guest's. */
async function carry(spaces: NetworkNamespaces, stateDir: string): Promise<void> {
  mkdirSync(stateDir, { recursive: true });
  const config = parseConfig(PodNetworkConfig, { tunnel: "vxlan", bypassConntrack: false }, "bench");
  const network = openPodNetwork({ config, stateDir, log: silentLogger(), hostNetns: spaces.path("worker") });
  const target = { sandboxId: randomUUID(), netnsPath: spaces.path("carried") };
  const found = await network?.inspect(target.netnsPath, withDeadline(30_000));
  if (network === undefined || found === undefined) throw new Error("there is no pod network");
  const plan = await network.attach(target, found, [UNDERLAY.guest], withDeadline(30_000));
  const guest = new GuestNetwork({
    namespaces: { pod: spaces.path("podns"), tunnel: "" },
    makeTunnelNamespace: notOfVxlan,
    setLink: notOfVxlan,
    run: async (where, batch) => {
      await spaces.run(where === "root" ? "guest" : "podns", "ip", ["-batch", "-"], { input: batch });
    },
  });
  await guest.apply(JSON.stringify(plan));
}

function notOfVxlan(): never {
  throw new Error("VXLAN has no keys and no namespace of its own");
}
