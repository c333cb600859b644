import { randomUUID } from "node:crypto";
import { loadProvider } from "../../../providers/registry.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { newOperationId, newSandboxId } from "../../../src/base/ids.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { InstanceSpec, Provider } from "../../../src/provider/index.ts";
import { ManualClock } from "./clock.ts";
import { Ec2Endpoint } from "./endpoint.ts";
import type { Ec2Model } from "./model.ts";
import { TEST_CREDENTIALS } from "./service.ts";

/** A small configuration that can start VMs at an endpoint. */
export const WORKING_CONFIG = {
  region: "eu-west-1",
  imageId: "ami-0a1b2c3d4e5f60001",
  subnets: ["subnet-0a1b2c3d4e5f6000a", "subnet-0a1b2c3d4e5f6000b", "subnet-0a1b2c3d4e5f6000c"],
  securityGroups: ["sg-0a1b2c3d4e5f60001"],
  instanceTypes: ["m6a.*", "c6a.*"],
  coalesceMs: 5,
} as const;

/** An account of its own with one clock for the cloud and its providers. */
export class AwsWorld implements AsyncDisposable {
  readonly endpoint: Ec2Endpoint;
  readonly clock: ManualClock;
  readonly #providers: Provider[] = [];

  private constructor(endpoint: Ec2Endpoint, clock: ManualClock) {
    this.endpoint = endpoint;
    this.clock = clock;
  }

  static async open(model?: Ec2Model): Promise<AwsWorld> {
    // The SDK takes its credentials from here, as it does in a pod.
    process.env.AWS_ACCESS_KEY_ID = TEST_CREDENTIALS.accessKeyId;
    process.env.AWS_SECRET_ACCESS_KEY = TEST_CREDENTIALS.secretAccessKey;
    const clock = new ManualClock();
    return new AwsWorld(await Ec2Endpoint.start(model === undefined ? { clock } : { clock, model }), clock);
  }

  /** A provider as a new adaptor has it. */
  async provider(change: Readonly<Record<string, unknown>> = {}): Promise<Provider> {
    const plugin = await loadProvider("aws");
    const config = { ...WORKING_CONFIG, endpoint: this.endpoint.url, ...change };
    const defined = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
    const parsed = parseConfig(plugin.configSchema, defined, "test");
    const provider = await plugin.create(parsed, { log: silentLogger(), now: () => new Date(this.clock.now()) });
    this.#providers.push(provider);
    return provider;
  }

  spec(change: Partial<InstanceSpec> = {}): InstanceSpec {
    const created = new Date(this.clock.now()).toISOString();
    return {
      name: "podvm-web-01234567",
      tags: { cluster: "c1", owner: "kata-remote", createOperation: newOperationId(), created },
      ...{ sandboxId: newSandboxId(), vcpus: 2, memoryMiB: 2048, gpus: 0 },
      userData: Buffer.from(`#cloud-config\n# ${randomUUID()}\n`),
      ...change,
    };
  }

  /** Names of the actions that were asked since the last call of this, in order. */
  takeActions(): string[] {
    return this.endpoint.requests.splice(0).map((r) => r.action);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const provider of this.#providers) await provider.close();
    await this.endpoint[Symbol.asyncDispose]();
  }
}
