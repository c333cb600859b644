import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Adaptor, AdaptorConfig, type AdaptorDeps, createAdaptor } from "../../src/adaptor/index.ts";
import { parseConfig } from "../../src/base/config.ts";
import { newSandboxId, type SandboxId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import { AdminDefinition } from "../../src/gen/kataremote/podvm/v1/admin.ts";
import { PodVmDefinition, type StartVmEvent } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient, type ServiceClient } from "../../src/grpc/index.ts";
import { ZeroProvider } from "./zero-provider.ts";

export type PodVmClient = ServiceClient<typeof PodVmDefinition>;

/** Configuration of an adaptor that lives in a directory and reconciles fast. */
export function adaptorConfig(dir: string, change: Readonly<Record<string, unknown>> = {}): AdaptorConfig {
  const input = {
    stateDir: dir,
    cluster: "test",
    provider: "zero",
    rest: { port: 0 },
    reconcile: { intervalMs: 50, lostIntervalMs: 50, orphanGraceMs: 0 },
    limits: { consoleWaitMs: 300 },
    // Tests make many VMs for a pod that never becomes ready.
    capacity: { breaker: { podFailures: 1000, classFailures: 1000 } },
    nodes: { rebootQuietMs: 0 },
    ...change,
    grpc: { socketPath: join(dir, "adaptor.sock"), ...(change.grpc as object | undefined) },
  };
  return parseConfig(AdaptorConfig, input, "test");
}

/** A whole adaptor on provider zero, reached over its socket as a node daemon does. */
export class AdaptorUnderTest implements AsyncDisposable {
  readonly dir: string;
  readonly provider: ZeroProvider;
  readonly config: AdaptorConfig;
  readonly client: PodVmClient;
  readonly admin: ServiceClient<typeof AdminDefinition>;
  readonly nodeId = "node-1";
  #adaptor: Adaptor;
  readonly #deps: Partial<AdaptorDeps>;

  private constructor(dir: string, config: AdaptorConfig, provider: ZeroProvider, deps: Partial<AdaptorDeps>) {
    this.dir = dir;
    this.config = config;
    this.provider = provider;
    this.#deps = deps;
    this.#adaptor = this.#create();
    const target = {
      address: `unix://${config.grpc.socketPath}`,
      options: { "grpc.initial_reconnect_backoff_ms": 20, "grpc.max_reconnect_backoff_ms": 50 },
    };
    this.client = createClient(PodVmDefinition, target);
    this.admin = createClient(AdminDefinition, target);
  }

  /** For a node daemon in the same process; of the adaptor that runs now. */
  get nodeDoor(): PodVmClient {
    const { nodeDoor } = this.#adaptor;
    if (nodeDoor === undefined) throw new Error("the adaptor is not started");
    return nodeDoor;
  }

  static async open(
    options: {
      readonly dir?: string;
      readonly config?: Readonly<Record<string, unknown>>;
      readonly deps?: Partial<AdaptorDeps>;
      /** Where the provider keeps its instances: one directory is one cloud, for any number of adaptors. */
      readonly cloud?: string;
    } = {},
  ): Promise<AdaptorUnderTest> {
    const dir = options.dir ?? (await mkdtemp(join(tmpdir(), "adaptor-")));
    const config = adaptorConfig(dir, options.config);
    const { places } = (config.providers.zero ?? {}) as { readonly places?: readonly string[] };
    const cloud = options.cloud ?? join(dir, "zero");
    const provider = new ZeroProvider({ dir: cloud, ...(places === undefined ? {} : { places }) });
    const tested = new AdaptorUnderTest(dir, config, provider, options.deps ?? {});
    await tested.#adaptor.start();
    return tested;
  }

  get rest(): string {
    return this.#adaptor.restAddress ?? "";
  }

  /** Ends it as SIGTERM does, does something, and starts it again on the same state. */
  async restart(meanwhile: () => Promise<void> = async () => undefined): Promise<void> {
    await this.#adaptor.close();
    await meanwhile();
    this.#adaptor = this.#create();
    await this.#adaptor.start();
  }

  async createVm(
    change: { readonly id?: SandboxId; readonly name?: string; readonly nodeId?: string; readonly gpus?: number } = {},
  ): Promise<SandboxId> {
    const { id = newSandboxId(), name = "web", nodeId = this.nodeId, gpus = 0 } = change;
    const pod = { namespace: "default", name, uid: "u" };
    await this.client.createVm({ sandboxId: id, nodeId, pod, containerdId: "c1", gpus }, call());
    return id;
  }

  /** All events of a start. */
  async startVm(sandboxId: SandboxId): Promise<StartVmEvent[]> {
    const events: StartVmEvent[] = [];
    for await (const event of this.client.startVm({ sandboxId }, call())) events.push(event);
    return events;
  }

  async instances(): Promise<readonly string[]> {
    return (await this.provider.listInstances("test")).map((i) => i.id);
  }

  /** Waits until `check` gives something. */
  async until<T>(check: () => Promise<T | undefined | false>, what: string, ms = 10_000): Promise<T> {
    const deadline = Date.now() + ms;
    for (;;) {
      const found = await check();
      if (found !== undefined && found !== false) return found;
      if (Date.now() > deadline) throw new Error(`never: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async json<T>(path: string): Promise<T> {
    return (await (await fetch(`${this.rest}${path}`)).json()) as T;
  }

  async phase(id: SandboxId): Promise<string | undefined> {
    return (await this.json<{ phase?: string }>(`/v1/sandboxes/${id}`)).phase;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close();
    this.admin.close();
    await this.#adaptor.close();
    await rm(this.dir, { recursive: true });
  }

  #create(): Adaptor {
    return createAdaptor(this.config, { provider: this.provider, log: silentLogger(), ...this.#deps });
  }
}

/** A call with a budget that no test should need. */
export function call(ms = 20_000): { readonly signal: AbortSignal } {
  return { signal: AbortSignal.timeout(ms) };
}
