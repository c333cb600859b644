import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openAws } from "../../../providers/aws/index.ts";
import { loadProvider } from "../../../providers/registry.ts";
import { AdaptorConfig, type Engine, openEngine } from "../../../src/adaptor/index.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { newSandboxId, type SandboxId } from "../../../src/base/ids.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { TEST_CREDENTIALS, WORKING_CONFIG } from "../../clouds/ec2/index.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { SimulatedEc2 } from "./simulated-ec2.ts";

const NODES = 20;
const PART = 1000;
/** Where the tests' configuration hurries, what operators have. */
const DEFAULTS = { coalesceMs: 50 };

/** The adaptor without its doors, with provider aws on a simulated account, all on one clock. */
export class SimulatedAdaptor implements AsyncDisposable {
  readonly clock: VirtualClock;
  readonly ec2: SimulatedEc2;
  readonly engine: Engine;
  readonly #parts: AsyncDisposableStack;
  readonly #call = { signal: new AbortController().signal };
  #pods = 0;

  private constructor(clock: VirtualClock, ec2: SimulatedEc2, engine: Engine, parts: AsyncDisposableStack) {
    this.clock = clock;
    this.ec2 = ec2;
    this.engine = engine;
    this.#parts = parts;
  }

  /** @param change of the provider's configuration */
  static async open(change: Readonly<Record<string, unknown>> = {}): Promise<SimulatedAdaptor> {
    process.env.AWS_ACCESS_KEY_ID = TEST_CREDENTIALS.accessKeyId;
    process.env.AWS_SECRET_ACCESS_KEY = TEST_CREDENTIALS.secretAccessKey;
    // The SDK dates its signatures by the real clock; the account's own time only has to be near.
    const clock = new VirtualClock(new Date());
    const ec2 = new SimulatedEc2(clock);
    const parts = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), "burst-"));
    parts.defer(() => rm(dir, { recursive: true }));
    const plugin = await loadProvider("aws");
    const aws = parseConfig(plugin.configSchema, { ...WORKING_CONFIG, ...DEFAULTS, ...change }, "burst") as Parameters<
      typeof openAws
    >[0];
    const log = silentLogger();
    const provider = await openAws(aws, { log, now: () => clock.now(), clock, transport: ec2.transport });
    parts.defer(() => provider.close());
    const config = parseConfig(
      AdaptorConfig,
      { stateDir: dir, cluster: "burst", provider: "aws", limits: { sandboxes: 1_000_000 } },
      "burst",
    );
    const engine = await openEngine(config, { provider, log, clock }, parts);
    engine.store.sandboxes.watch(() => clock.activity++);
    return new SimulatedAdaptor(clock, ec2, engine, parts);
  }

  /** One pod as a node starts it, until its guest would be ready. */
  async startPod(): Promise<SandboxId> {
    const id = await this.#createPod();
    const { service } = this.engine;
    for await (const event of service.startVm(id, this.#call)) {
      if (event.stage === "failed") throw new Error(`${id}: ${event.code}: ${event.message}`);
    }
    await service.reportReady(id, this.#call);
    return id;
  }

  /** The same, until the adaptor has accepted it. */
  async acceptPod(): Promise<void> {
    const id = await this.#createPod();
    for await (const event of this.engine.service.startVm(id, this.#call)) if (event.stage === "accepted") return;
  }

  /** So many pods that are ready, a part of them at a time. */
  async makeReady(count: number): Promise<void> {
    for (let made = 0; made < count; made += PART) {
      await Promise.all(Array.from({ length: Math.min(PART, count - made) }, () => this.startPod()));
    }
  }

  async #createPod(): Promise<SandboxId> {
    const id = newSandboxId();
    const number = this.#pods++;
    const request = {
      ...{ id, nodeId: `node-${number % NODES}`, size: { vcpus: 2, memoryMiB: 2048, gpus: 0 } },
      pod: { namespace: "burst", name: `pod-${number}`, uid: `uid-${number}` },
      containerd: { namespace: "k8s.io", id: `c-${number}` },
    };
    await this.engine.service.createVm(request, this.#call);
    this.clock.activity++;
    return id;
  }

  async stopPod(id: SandboxId): Promise<void> {
    await this.engine.service.stopVm({ id, reason: "the pod is deleted" }, this.#call);
  }

  /** Waits until the tags of all pods name their sandbox, which nobody else waits for. */
  async untilTagged(pods: number): Promise<void> {
    const deadline = this.clock.now().getTime() + pods * 1_000;
    while ((this.ec2.calls.get("CreateTags") ?? 0) < pods) {
      if (this.clock.now().getTime() > deadline) throw new Error("not all instances were tagged");
      await new Promise<void>((resolve) => this.clock.after(500, resolve));
    }
  }

  /** Waits until no instance is left and no record says that one is. */
  async untilGone(): Promise<void> {
    const { sandboxes } = this.engine.store;
    while ((await sandboxes.count(["creating", "booting", "ready", "stopping", "lost", "failed"])) > 0) {
      await new Promise<void>((resolve) => this.clock.after(500, resolve));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What is still on its way waits for the clock, which nobody moves any more.
    await this.clock.run(this.#parts.disposeAsync());
  }
}
