import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { loadProvider } from "../../../providers/registry.ts";
import { realClock } from "../../../src/base/clock.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { newOperationId, newSandboxId } from "../../../src/base/ids.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { InstanceSpec, Provider } from "../../../src/provider/index.ts";
import { ArmEndpoint } from "./endpoint.ts";
import type { ArmModel } from "./model.ts";
import { GROUP } from "./seed.ts";

const SUBSCRIPTION = "11111111-2222-3333-4444-555555555555";
const PROVIDERS = `/subscriptions/${SUBSCRIPTION}/resourceGroups/${GROUP}/providers`;

/** Resource ids of what an endpoint's account begins with. */
export const SEEDED = {
  subnet: `${PROVIDERS}/Microsoft.Network/virtualNetworks/pods-vnet/subnets/podvms`,
  externalSubnet: `${PROVIDERS}/Microsoft.Network/virtualNetworks/pods-vnet/subnets/external`,
  smallSubnet: `${PROVIDERS}/Microsoft.Network/virtualNetworks/pods-vnet/subnets/small`,
  securityGroup: `${PROVIDERS}/Microsoft.Network/networkSecurityGroups/podvm`,
  closedSecurityGroup: `${PROVIDERS}/Microsoft.Network/networkSecurityGroups/closed`,
  image: (name: string, version?: string): string =>
    `${PROVIDERS}/Microsoft.Compute/galleries/podvm/images/${name}${version === undefined ? "" : `/versions/${version}`}`,
} as const;

/** A small configuration that can start VMs at an endpoint. */
export const AZURE_CONFIG = {
  subscriptionId: SUBSCRIPTION,
  resourceGroup: GROUP,
  location: "westeurope",
  subnets: [SEEDED.subnet],
  securityGroup: SEEDED.securityGroup,
  image: SEEDED.image("kata-remote"),
  sizes: ["Standard_DC*as_v5", "Standard_EC*as_v5"],
  zones: ["1", "2"],
  ...{ coalesceMs: 5, pollMs: 20, deletePollMs: 20, settleMs: 2000 },
} as const;

/** An account of its own, with one clock for the cloud and its providers. */
export class AzureWorld implements AsyncDisposable {
  readonly endpoint: ArmEndpoint;
  readonly clock: JumpingClock;
  readonly #folder: string;
  readonly #providers: Provider[] = [];

  private constructor(endpoint: ArmEndpoint, clock: JumpingClock, folder: string) {
    this.endpoint = endpoint;
    this.clock = clock;
    this.#folder = folder;
  }

  static async open(model?: ArmModel): Promise<AzureWorld> {
    const clock = new JumpingClock();
    const endpoint = await ArmEndpoint.start(model === undefined ? { clock } : { clock, model });
    const folder = await mkdtemp(join(tmpdir(), "azure-world-"));
    await writeFile(join(folder, "ca.pem"), endpoint.certificates.ca);
    useServicePrincipal(endpoint);
    return new AzureWorld(endpoint, clock, folder);
  }

  /** Keys of a provider's configuration that bring it to this account. */
  get access(): Readonly<Record<string, unknown>> {
    const { url } = this.endpoint;
    return { endpoint: url, authorityHost: url, caFile: join(this.#folder, "ca.pem") };
  }

  /** A provider as a new adaptor has it. */
  async provider(change: Readonly<Record<string, unknown>> = {}): Promise<Provider> {
    const plugin = await loadProvider("azure");
    const config = { ...AZURE_CONFIG, ...this.access, ...change };
    const defined = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
    const parsed = parseConfig(plugin.configSchema, defined, "test");
    const provider = await plugin.create(parsed, {
      log: silentLogger(),
      now: () => new Date(this.clock.now()),
      clock: { ...realClock, now: () => new Date(this.clock.now()) },
    });
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

  /** Names of the operations that were asked for since the last call of this, in order. */
  takeActions(): string[] {
    return this.endpoint.requests.splice(0).map((r) => r.action);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const provider of this.#providers) await provider.close();
    await delay(20); // connections that a provider has just opened are then known, and closed
    await this.endpoint[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** Real time, and jumps ahead of it. */
class JumpingClock {
  #ahead = 0;

  now(): number {
    return Date.now() + this.#ahead;
  }

  advance(ms: number): void {
    this.#ahead += ms;
  }
}

/** The SDK takes its credentials from here, as it does in a pod. */
export function useServicePrincipal({ tenant }: ArmEndpoint): void {
  const { clientId, secret } = tenant.application;
  Object.assign(process.env, {
    ...{ AZURE_TENANT_ID: tenant.id, AZURE_CLIENT_ID: clientId, AZURE_CLIENT_SECRET: secret },
  });
}
