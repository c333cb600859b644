import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Adaptor, createAdaptor } from "../../src/adaptor/index.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import {
  CreateVMRequest,
  CreateVMResponse,
  StartVMRequest,
  StopVMRequest,
} from "../../src/gen/hypervisor/hypervisor.ts";
import { StockConfig, StockDoor } from "../../src/node/door/index.ts";
import type { PodNetns } from "../../src/podnetwork/index.ts";
import { InProcessRelay } from "../../src/relay/index.ts";
import { openRemote } from "../../src/shim/hypervisor/index.ts";
import { adaptorConfig } from "../fakes/adaptor-under-test.ts";
import { ForwarderProvider } from "../fakes/forwarder-provider.ts";
import { FakePodNetwork } from "../fakes/pod-network.ts";
import { WireClient, type WireOptions, type WireReply } from "./shim-wire.ts";

export const HYPERVISOR = "hypervisor.Hypervisor";
export const AGENT = "grpc.AgentService";
export const HEALTH = "grpc.Health";

/** What a CNI makes of a pod: address, connected route, default route, one permanent neighbour. */
export const POD_NETNS: PodNetns = {
  interfaces: [
    { name: "eth0", mac: "02:00:00:00:00:07", mtu: 1450, addresses: [{ address: "10.9.0.7", prefixLength: 24 }] },
  ],
  routes: [
    { destination: "0.0.0.0/0", device: "eth0", gateway: "10.9.0.1" },
    { destination: "10.9.0.0/24", device: "eth0", scope: 253, protocol: 2, source: "10.9.0.7" },
  ],
  neighbours: [{ address: "10.9.0.1", mac: "02:00:00:00:00:01", device: "eth0" }],
};

class PodNetworkWithRoutes extends FakePodNetwork {
  override async inspect(netnsPath: string): Promise<PodNetns> {
    await super.inspect(netnsPath);
    return POD_NETNS;
  }
}

/** Adaptor, node daemon's door and relay in this process; its VMs are stock forwarders. */
export class StockWorld implements AsyncDisposable {
  readonly dir: string;
  readonly provider = new ForwarderProvider();
  readonly network = new PodNetworkWithRoutes();
  readonly config: StockConfig;
  #adaptor: Adaptor | undefined;
  #node: StockDoor | undefined;
  #parts: AsyncDisposable[] = [];
  #nodeEnds = new AbortController();
  readonly #clients: WireClient[] = [];

  private constructor(dir: string, change: object) {
    this.dir = dir;
    const config = { socket: join(dir, "h.sock"), podsDir: join(dir, "p"), ...change };
    this.config = parseConfig(StockConfig, config, "test");
  }

  static async open(change: object = {}): Promise<StockWorld> {
    const world = new StockWorld(await mkdtemp(join(tmpdir(), "sw-")), change);
    try {
      await world.startAdaptor();
      await world.startNode();
      return world;
    } catch (e) {
      await world[Symbol.asyncDispose]();
      throw e;
    }
  }

  async startAdaptor(): Promise<void> {
    this.#adaptor = createAdaptor(adaptorConfig(this.dir), { provider: this.provider, log: silentLogger() });
    await this.#adaptor.start();
  }

  async stopAdaptor(): Promise<void> {
    await this.#adaptor?.close();
    this.#adaptor = undefined;
  }

  get rest(): string {
    return this.#adaptor?.restAddress ?? "";
  }

  async startNode(): Promise<void> {
    const log = silentLogger();
    const hypervisor = await openRemote({
      ...{ address: `unix://${join(this.dir, "adaptor.sock")}`, nodeId: "node-1", bootId: "boot-1", patienceMs: 5000 },
      ...{ stateDir: join(this.dir, "node"), runDir: join(this.dir, "run"), log },
    });
    const relay = new InProcessRelay({ log, keepAliveMs: 60_000, keepAliveDeadlineMs: 1000 });
    this.#parts.push(relay, { [Symbol.asyncDispose]: () => hypervisor.close() });
    const call = { signal: this.#nodeEnds.signal };
    const deps = {
      ...{ hypervisors: new Map([["remote", hypervisor]]), relay, podNetwork: this.network },
      ...{ runDir: join(this.dir, "run"), guestLostAfterMs: 5000, lookMs: 50, log },
    };
    const door = await StockDoor.recover(this.config, deps, call);
    await hypervisor.sync(door.liveSandboxes(), call);
    void hypervisor.watch((loss) => door.onVmLoss(loss), call);
    await door.open();
    this.#node = door;
  }

  /** As a daemon that ends, or crashes: everything it held is gone. */
  async stopNode(): Promise<void> {
    const node = this.#node;
    this.#node = undefined;
    this.#nodeEnds.abort();
    this.#nodeEnds = new AbortController();
    await node?.close();
    for (const part of this.#parts.splice(0)) await part[Symbol.asyncDispose]();
  }

  get door(): StockDoor {
    if (this.#node === undefined) throw new Error("the node daemon does not run");
    return this.#node;
  }

  async dial(path = this.config.socket): Promise<WireClient> {
    const client = await WireClient.dial(path);
    this.#clients.push(client);
    return client;
  }

  /** Go's shim: one connection for each call. */
  async goCall(method: string, payload: Uint8Array, options: WireOptions = {}): Promise<WireReply> {
    const client = await this.dial();
    try {
      return await client.call(HYPERVISOR, method, payload, options);
    } finally {
      client.close();
    }
  }

  async until(what: string, check: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
    const end = performance.now() + ms;
    while (!(await check())) {
      if (performance.now() > end) throw new Error(`never: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.stopNode();
    await this.stopAdaptor();
    await this.provider.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}

export function newShimId(): string {
  return randomBytes(32).toString("hex");
}

/** The closed list of annotations, as Go's shim fills it for a pod that asks for nothing. Source: wire contract §3.2. */
export function annotations(change: Readonly<Record<string, string>> = {}): Record<string, string> {
  const hypervisor = "io.katacontainers.config.hypervisor";
  return {
    "io.kubernetes.cri.sandbox-name": "web",
    "io.kubernetes.cri.sandbox-namespace": "default",
    [`${hypervisor}.machine_type`]: "",
    [`${hypervisor}.image`]: "",
    [`${hypervisor}.default_vcpus`]: "0",
    [`${hypervisor}.default_memory`]: "0",
    [`${hypervisor}.cc_init_data`]: "",
    [`${hypervisor}.default_gpus`]: "0",
    [`${hypervisor}.default_gpu_model`]: "",
    ...change,
  };
}

export function createVm(id: string, change: Readonly<Record<string, string>> = {}): Uint8Array {
  const request = { id, annotations: annotations(change), networkNamespacePath: `/run/netns/${id.slice(0, 8)}` };
  return CreateVMRequest.encode(CreateVMRequest.fromPartial(request)).finish();
}

export function socketOf(reply: WireReply): string {
  if (reply.code !== 0) throw new Error(`${reply.code} ${reply.message}`);
  return CreateVMResponse.decode(reply.payload).agentSocketPath;
}

export const startVm = (id: string): Uint8Array => StartVMRequest.encode(StartVMRequest.fromPartial({ id })).finish();
export const stopVm = (id: string): Uint8Array => StopVMRequest.encode(StopVMRequest.fromPartial({ id })).finish();
