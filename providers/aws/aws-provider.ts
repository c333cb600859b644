import type { Instance as Ec2Instance, Filter } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { realClock } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { ended, race } from "../../src/base/retry.ts";
import type {
  BatchCreation,
  CloudAccount,
  Finding,
  Instance,
  InstanceSpec,
  OwnerTags,
  Provider,
  ProviderDeps,
} from "../../src/provider/index.ts";
import { AwsBatches } from "./batches.ts";
import type { AwsConfig } from "./config.ts";
import { ConsoleReader } from "./console-reader.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import { InstanceEnder } from "./instance-ender.ts";
import { InstanceLister } from "./instance-lister.ts";
import { InstanceReader } from "./instance-reader.ts";
import { Launcher } from "./launcher.ts";
import { type Operation, Operations } from "./operations.ts";
import { Recent } from "./recent.ts";
import { REQUEST_FAMILIES } from "./request-families.ts";
import { CLUSTER_TAG, OPERATION_TAG, OWNER, OWNER_TAG } from "./tags.ts";
import { isGone, toInstance } from "./to-instance.ts";
import { verifyAccount } from "./verify.ts";
import { Volumes } from "./volumes.ts";

/** States of an instance that somebody has to answer for. */
const LIVING = ["pending", "running", "stopping", "stopped"];

/** With 2,000 VMs a listing is ten requests; that they and all others stay below 1.2 per pod in a burst, ms. */
const LIST_INTERVAL_MS = 45_000;

/** Pod VMs as EC2 instances. All that has to be remembered is in EC2: client tokens and tags. */
export class AwsProvider implements Provider {
  readonly name = "aws";
  readonly scratchDisk: boolean;
  readonly secondInterface: boolean;
  readonly volumes: Volumes;
  readonly account: CloudAccount;
  readonly batches: BatchCreation;
  readonly #config: AwsConfig;
  readonly #deps: ProviderDeps;
  readonly #api: Ec2Api;
  readonly #launcher: Launcher;
  readonly #reader: InstanceReader;
  readonly #ender: InstanceEnder;
  readonly #lister: InstanceLister;
  readonly #consoles: ConsoleReader;
  readonly #recent: Recent;
  readonly #operations: Operations;

  constructor(config: AwsConfig, deps: ProviderDeps & { readonly api: Ec2Api }) {
    const { api, now, clock = realClock } = deps;
    this.scratchDisk = config.dataVolumes.some((v) => v.snapshotId === undefined);
    this.secondInterface = config.externalSubnets.length > 0;
    this.#config = config;
    this.#deps = deps;
    this.#api = api;
    this.volumes = new Volumes({ api, config, clock });
    this.#launcher = new Launcher({ api, config, now, volumes: this.volumes });
    this.#reader = new InstanceReader({ api, windowMs: config.coalesceMs, clock });
    this.#ender = new InstanceEnder({ api, windowMs: config.coalesceMs, clock });
    this.#lister = new InstanceLister({
      ...{ windowMs: config.coalesceMs, clock },
      list: (cluster, call) =>
        api.describeInstances([...ours(cluster), { Name: "instance-state-name", Values: LIVING }], call),
    });
    this.#consoles = new ConsoleReader({ api, now });
    this.#recent = new Recent({ now });
    this.#operations = new Operations({ now });
    this.account = {
      ...{ families: REQUEST_FAMILIES, createFamily: "RunInstances", listIntervalMs: LIST_INTERVAL_MS },
      useGate: (gate) => api.useGate(gate),
    };
    this.batches = new AwsBatches({
      ...{ api, config, launcher: this.#launcher },
      findByOperation: (wanted, call) => this.#listOperation(wanted.tags, call),
      onCreated: (instance) => this.#recent.noteCreated(instance),
    });
  }

  async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    const operation = this.#operations.get(spec.tags);
    const made = operation.lock.run(async () => {
      if (call.signal.aborted) throw ended(call);
      const known = await this.#madeBefore(spec, operation, call);
      if (known !== undefined) return known;
      const instance = await this.#launch(spec, operation, call);
      operation.instanceId = instance.id;
      return instance;
    });
    return race(made, call);
  }

  async deleteInstance(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    if (!isOurs(id)) return "gone";
    try {
      await this.#ender.end(id, call);
    } catch (e) {
      if (kindOf(e) !== "not-found") throw e;
      // EC2 may not know yet what it has just made.
      return this.#recent.created(id) === undefined ? "gone" : "deleting";
    }
    this.#recent.noteDeleted(id);
    this.#deps.log.info({ instance: id }, "EC2 has accepted the end of the instance");
    return "gone";
  }

  async getInstance(id: InstanceId, call: Call): Promise<Instance | undefined> {
    if (!isOurs(id) || this.#recent.isDeleted(id)) return undefined;
    const ec2 = await this.#reader.read(id, call);
    if (ec2 === undefined) return this.#recent.created(id);
    if (isGone(ec2)) {
      this.#recent.noteGone(id);
      return undefined;
    }
    return toInstance(ec2, this.#config.publicIp);
  }

  async listInstances(cluster: string, call: Call): Promise<readonly Instance[]> {
    const found = await this.#lister.list(cluster, call);
    const listed = found.map((i) => toInstance(i, this.#config.publicIp)).filter((i) => !this.#recent.isDeleted(i.id));
    return [...listed, ...this.#recent.missingFrom(listed, cluster)];
  }

  async consoleOutput(id: InstanceId, maxBytes: number, call: Call): Promise<string | undefined> {
    if (!isOurs(id)) return undefined;
    const text = await this.#consoles.read(id, maxBytes, call);
    // A console that cannot be read yet is not one that can never be read.
    return text ?? (this.#recent.created(id) === undefined ? undefined : "");
  }

  verify(call: Call): Promise<readonly Finding[]> {
    return verifyAccount({ api: this.#api, config: this.#config, launcher: this.#launcher }, call);
  }

  /** The VMs live on. */
  async close(): Promise<void> {
    this.#api.close();
  }

  /**
   * What the operation has already made. EC2 is asked only when there may be something: this process made it, or another
   * one may have. Else the first request is the launch.
   */
  async #madeBefore(spec: InstanceSpec, operation: Operation, call: Call): Promise<Instance | undefined> {
    const { instanceId } = operation;
    if (instanceId !== undefined) {
      const instance = await this.getInstance(instanceId, call);
      if (instance === undefined) throw operationEnded(spec, instanceId);
      return instance;
    }
    if (!operation.search) return undefined;
    const made = await this.#findByOperation(spec, operation, call);
    operation.search = false;
    return made;
  }

  async #listOperation(tags: OwnerTags, call: Call): Promise<readonly Instance[]> {
    const found = await this.#describeOperation(tags, call);
    return found.filter((i) => !isGone(i)).map((i) => toInstance(i, this.#config.publicIp));
  }

  #describeOperation({ cluster, createOperation }: OwnerTags, call: Call): Promise<readonly Ec2Instance[]> {
    const filters = [...ours(cluster), { Name: `tag:${OPERATION_TAG}`, Values: [createOperation] }];
    return this.#api.describeInstances(filters, call);
  }

  async #findByOperation(spec: InstanceSpec, operation: Operation, call: Call): Promise<Instance | undefined> {
    const found = await this.#describeOperation(spec.tags, call);
    const living = found.find((i) => !isGone(i));
    if (living !== undefined) {
      const instance = toInstance(living, this.#config.publicIp);
      operation.instanceId = instance.id;
      return instance;
    }
    // A new one could be one too many: whoever ended the first may have done so because the pod is gone.
    if (found[0] !== undefined) throw operationEnded(spec, found[0].InstanceId);
    return undefined;
  }

  async #launch(spec: InstanceSpec, operation: Operation, call: Call): Promise<Instance> {
    const began = performance.now();
    try {
      // The first place and no other: which one comes next is decided by who asks for batches.
      const [place] = await this.#launcher.places(spec, call);
      const batch = { class: spec, count: 1, place: place?.key ?? "", admitted: false };
      const [ec2] = await this.#launcher.launchBatch(batch, call);
      if (isGone(ec2)) throw operationEnded(spec, ec2.InstanceId);
      const instance = toInstance(ec2, this.#config.publicIp);
      this.#recent.noteCreated(instance);
      this.#deps.log.info(
        {
          ...{ instance: instance.id, sandbox: spec.sandboxId, type: ec2.InstanceType, subnet: ec2.SubnetId },
          market: ec2.InstanceLifecycle ?? "on-demand",
          durationMs: Math.round(performance.now() - began),
        },
        "EC2 has accepted the instance",
      );
      return instance;
    } catch (e) {
      const kind = kindOf(e);
      if (kind === "ended") throw operationEnded(spec, undefined, e);
      if (kind !== "mismatch") throw e;
      const made = await this.#findByOperation(spec, operation, call);
      if (made !== undefined) return made;
      throw e; // "aborted", to be tried again: the listing does not show it yet
    }
  }
}

function ours(cluster: string): Filter[] {
  return [
    { Name: `tag:${CLUSTER_TAG}`, Values: [literal(cluster)] },
    { Name: `tag:${OWNER_TAG}`, Values: [OWNER] },
  ];
}

/** Filters know wildcards: a cluster "a*" must not list "ab". Source: EC2 user guide, "Filtering resources". */
function literal(text: string): string {
  return text.replace(/[\\*?]/g, "\\$&");
}

/** Ids that EC2 cannot have made are not worth a request. */
function isOurs(id: InstanceId): boolean {
  return /^i-[0-9a-f]{8,17}$/.test(id);
}

function operationEnded(spec: InstanceSpec, instanceId: string | undefined, cause?: unknown): Fault {
  const { createOperation } = spec.tags;
  const which = instanceId === undefined ? "the instance" : `instance ${instanceId}`;
  const message = `${which} that ${createOperation} made has ended: a new operation is needed for a new one`;
  const context = { provider: "aws", instanceId, operationId: createOperation, sandboxId: spec.sandboxId };
  return new Fault("failed_precondition", message, context, { cause });
}
