import type { Call } from "../../src/base/call.ts";
import { realClock } from "../../src/base/clock.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { ended } from "../../src/base/retry.ts";
import type {
  BatchCreation,
  CloudAccount,
  Finding,
  Instance,
  InstanceSpec,
  Provider,
  ProviderDeps,
} from "../../src/provider/index.ts";
import { Addresses } from "./addresses.ts";
import type { ArmApi } from "./arm-api.ts";
import { Assignments } from "./assignments.ts";
import type { AzureSdk } from "./azure-sdk.ts";
import { AzureBatches } from "./batches.ts";
import type { AzureConfig } from "./config.ts";
import { ConsoleReader } from "./console-reader.ts";
import { Launcher } from "./launcher.ts";
import { isVmName } from "./names.ts";
import { Parts } from "./parts.ts";
import { Recent } from "./recent.ts";
import { REQUEST_FAMILIES } from "./request-families.ts";
import { toInstance } from "./to-instance.ts";
import { verifyAccount } from "./verify.ts";
import { VmEnder } from "./vm-ender.ts";
import { VmLister } from "./vm-lister.ts";
import { VmMaker } from "./vm-maker.ts";
import { VmReader } from "./vm-reader.ts";
import { Volumes } from "./volumes.ts";

/** A listing is four requests and a few more for each thousand VMs. */
const LIST_INTERVAL_MS = 45_000;

/** Pod VMs as Azure VMs. All that has to be remembered is in Azure: names that follow from operations, and tags. */
export class AzureProvider implements Provider {
  readonly name = "azure";
  readonly scratchDisk: boolean;
  readonly secondInterface: boolean;
  readonly volumes: Volumes;
  readonly account: CloudAccount;
  readonly batches: BatchCreation;
  readonly #config: AzureConfig;
  readonly #launcher: Launcher;
  readonly #maker: VmMaker;
  readonly #reader: VmReader;
  readonly #lister: VmLister;
  readonly #ender: VmEnder;
  readonly #consoles: ConsoleReader;
  readonly #recent: Recent;
  readonly #assignments: Assignments;
  readonly #verify: (call: Call) => Promise<readonly Finding[]>;

  constructor(config: AzureConfig, deps: ProviderDeps & { readonly api: ArmApi; readonly sdk: AzureSdk }) {
    const { api, sdk, log, clock = realClock } = deps;
    const base = { api, config, clock, log, windowMs: config.coalesceMs, usePublicIp: config.publicIp };
    const addresses = new Addresses(base);
    const parts = new Parts(base);
    this.scratchDisk = config.dataDisksGiB.length > 0;
    this.secondInterface = config.extraSubnets.length > 0;
    this.#config = config;
    this.volumes = new Volumes(base);
    this.#launcher = new Launcher({ ...base, volumes: this.volumes });
    this.#recent = new Recent(base);
    this.#reader = new VmReader({ ...base, addresses });
    const shared = { ...base, reader: this.#reader, recent: this.#recent };
    this.#ender = new VmEnder({ ...shared, parts, pollMs: config.deletePollMs });
    this.#maker = new VmMaker({ ...shared, launcher: this.#launcher, ender: this.#ender });
    this.#assignments = new Assignments(base);
    const onListed: Assignments["onListed"] = (vms) => this.#assignments.onListed(vms);
    this.#lister = new VmLister({ ...base, parts, addresses, onListed });
    this.#consoles = new ConsoleReader({ ...base, timeoutMs: config.requestTimeoutMs, ca: sdk.ca });
    this.#verify = (call) => verifyAccount({ api, sdk, config, launcher: this.#launcher }, call);
    this.account = {
      ...{ families: REQUEST_FAMILIES, createFamily: "write", listIntervalMs: LIST_INTERVAL_MS },
      useGate: (gate) => api.requests.useGate(gate),
    };
    this.batches = new AzureBatches({
      ...{ config, launcher: this.#launcher, maker: this.#maker, assignments: this.#assignments },
    });
  }

  /** At the first place and no other: which one comes next is decided by who asks for batches. */
  async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    if (call.signal.aborted) throw ended(call);
    const [place] = await this.#launcher.places(spec, call);
    return this.#maker.make({ wanted: spec, place: place?.key ?? "", index: 0, admitted: false }, call);
  }

  async deleteInstance(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    if (!isVmName(id)) return "gone";
    this.#assignments.forget(id);
    return this.#ender.end(id, call);
  }

  async getInstance(id: InstanceId, call: Call): Promise<Instance | undefined> {
    if (!isVmName(id)) return undefined;
    const view = await this.#reader.read(id, this.#config.pollMs, call);
    const shown = view === undefined ? undefined : toInstance(view);
    if (this.#recent.isDeleted(id, shown)) return undefined;
    if (shown !== undefined) return this.#noteSeen(shown);
    return this.#recent.created(id) ?? this.#lister.orphan(id, call);
  }

  async listInstances(cluster: string, call: Call): Promise<readonly Instance[]> {
    const found = await this.#lister.list(cluster, call);
    const listed = found.filter((i) => !this.#recent.isDeleted(i.id, i));
    for (const instance of listed) this.#noteSeen(instance);
    return [...listed, ...this.#recent.missingFrom(listed, cluster)];
  }

  async consoleOutput(id: InstanceId, maxBytes: number, call: Call): Promise<string | undefined> {
    if (!isVmName(id) || !this.#config.bootDiagnostics) return undefined;
    const text = await this.#consoles.read(id, maxBytes, call);
    // A console that cannot be read yet is not one that can never be read.
    return text ?? (this.#recent.created(id) === undefined ? undefined : "");
  }

  verify(call: Call): Promise<readonly Finding[]> {
    return this.#verify(call);
  }

  /** The VMs live on. */
  async close(): Promise<void> {
    this.#assignments.close();
    this.#ender.close();
  }

  #noteSeen(instance: Instance): Instance {
    if (!this.#ender.isEnding(instance.id)) this.#recent.noteSeen(instance);
    return instance;
  }
}
