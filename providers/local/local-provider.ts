import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { type Call, withDeadline } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import { mkdirPrivate } from "../../src/base/files.ts";
import { type InstanceId, parseInstanceId } from "../../src/base/ids.ts";
import { KeyedMutex } from "../../src/base/mutex.ts";
import { ended } from "../../src/base/retry.ts";
import type { Finding, Instance, InstanceSpec, Provider, ProviderDeps } from "../../src/provider/index.ts";
import { loadBootImage, QemuVmm, readConsole, VmNetwork } from "../../src/vmm/index.ts";
import type { LocalConfig } from "./config.ts";
import { InstanceDirectory, type InstanceRecord } from "./instance-record.ts";
import { checkDisk, verifyHost } from "./verify-host.ts";

/** Port of the agent tunnel in the guest. Source: peer-pods wire contract §3.6. */
const GUEST_PORT = 15150;

/**
 * Pod VMs as QEMU processes of this host. They belong to nobody's process tree: an adaptor that ends leaves them
 * running, the next one finds them by their directories.
 */
export class LocalProvider implements Provider {
  readonly name = "local";
  readonly #config: LocalConfig;
  readonly #deps: ProviderDeps;
  readonly #directory: InstanceDirectory;
  readonly #vmm: QemuVmm;
  readonly #network: VmNetwork;
  /** Creates and deletes of one instance, one after another. */
  readonly #locks = new KeyedMutex<InstanceId>();

  constructor(config: LocalConfig, deps: ProviderDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#directory = new InstanceDirectory(config.stateDir);
    this.#vmm = new QemuVmm({ log: deps.log, qemuPath: config.qemu, cacheDir: config.cacheDir });
    this.#network = new VmNetwork({ ...config, owner: resolve(config.stateDir), log: deps.log });
  }

  async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    refuseImpossible(spec);
    const id = instanceIdFor(spec);
    return this.#locks.run(id, async () => {
      if (call.signal.aborted) throw ended(call);
      const known = await this.#directory.read(id);
      if (known?.started !== undefined) return this.#toInstance(known, call);
      const { name, tags, sandboxId, memoryMiB } = spec;
      const vcpus = spec.vcpus > 0 ? spec.vcpus : this.#config.vcpus;
      const createdAt = this.#deps.now().toISOString();
      let record: InstanceRecord = known ?? { version: 1, id, name, tags, sandboxId, vcpus, memoryMiB, createdAt };
      try {
        await checkDisk(this.#config.stateDir);
        record = await this.#place(record, call);
        await mkdirPrivate(this.#directory.vmDir(id)); // a delete that was cut short may have taken it
        const started = await this.#startVm(record, spec, call);
        const running = { ...record, started };
        await this.#directory.update(running);
        this.#deps.log.info(
          { instance: id, sandbox: sandboxId, pid: started.pid, port: started.hostPort },
          "VM started",
        );
        return await this.#toInstance(running, call);
      } catch (e) {
        await this.#removeAll(id);
        throw e;
      }
    });
  }

  async deleteInstance(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    if (!isOurs(id)) return "gone";
    const known = await this.#directory.read(id);
    await this.#vmm.destroy(this.#directory.vmDir(id), call); // first without the lock: cuts short a start under way
    await this.#locks.run(id, () => this.#removeAll(id));
    if (known !== undefined) this.#deps.log.info({ instance: id, sandbox: known.sandboxId }, "VM removed");
    return "gone";
  }

  async getInstance(id: InstanceId, call: Call): Promise<Instance | undefined> {
    if (!isOurs(id)) return undefined;
    const record = await this.#directory.read(id);
    return record === undefined ? undefined : this.#toInstance(record, call);
  }

  async listInstances(cluster: string, call: Call): Promise<readonly Instance[]> {
    const records = await this.#directory.list();
    return Promise.all(records.filter((r) => r.tags.cluster === cluster).map((r) => this.#toInstance(r, call)));
  }

  async consoleOutput(id: InstanceId, maxBytes: number, _call: Call): Promise<string | undefined> {
    return isOurs(id) ? readConsole(this.#directory.vmDir(id), maxBytes) : undefined;
  }

  verify(call: Call): Promise<readonly Finding[]> {
    return verifyHost(this.#config, this.#vmm, this.#network, call);
  }

  /** The VMs live on. */
  async close(): Promise<void> {
    await this.#vmm[Symbol.asyncDispose]();
  }

  /** Writes the record down, with the VM's address in it. */
  async #place(record: InstanceRecord, call: Call): Promise<InstanceRecord> {
    let placed = record;
    await this.#network.assign(
      {
        mine: record.tap,
        taken: async () => (await this.#directory.list()).flatMap((r) => r.tap?.address ?? []),
        keep: async (tap) => {
          placed = tap === undefined ? record : { ...record, tap };
          await this.#directory.create(placed);
        },
      },
      call,
    );
    return placed;
  }

  async #startVm(record: InstanceRecord, spec: InstanceSpec, call: Call): ReturnType<QemuVmm["start"]> {
    const { acceleration, outbound, imageDir } = this.#config;
    return this.#vmm.start(
      {
        ...(await loadBootImage(imageDir)),
        name: record.name,
        dir: this.#directory.vmDir(record.id),
        vcpus: record.vcpus,
        memoryMiB: record.memoryMiB,
        userData: spec.userData,
        metaData: `instance-id: ${record.id}\nlocal-hostname: ${record.name}\n`,
        guestPort: GUEST_PORT,
        tap: record.tap,
        lifetime: "detached",
        ...{ acceleration, outbound },
        ...(spec.rootDiskGiB === undefined ? {} : { diskGiB: spec.rootDiskGiB }),
      },
      call,
    );
  }

  async #removeAll(id: InstanceId): Promise<void> {
    const call = { signal: new AbortController().signal }; // must finish whoever stopped waiting
    await this.#vmm.destroy(this.#directory.vmDir(id), call);
    await this.#directory.remove(id);
    await this.#network.release(async () => (await this.#directory.list()).some((r) => r.tap !== undefined));
  }

  async #toInstance(record: InstanceRecord, call: Call): Promise<Instance> {
    const { id, name, tags } = record;
    const common = { id, name, tags, createdAt: new Date(record.createdAt), addresses: [] };
    const handle = await this.#vmm.find(this.#directory.vmDir(id), call);
    if (handle !== undefined)
      return {
        ...common,
        state: "running",
        addresses: [handle.address ?? "127.0.0.1"],
        tunnelPort: handle.hostPort,
      };
    if (record.started === undefined) return { ...common, state: "pending" };
    const { reason } = await this.#vmm.wait(record.started, withDeadline(1000, call));
    return { ...common, state: "failed", reason };
  }
}

/** The same create operation gives the same id: that is all there is to idempotency here. */
function instanceIdFor(spec: InstanceSpec): InstanceId {
  const { cluster, createOperation } = spec.tags;
  const digest = createHash("sha256").update(`${cluster}/${createOperation}`).digest("hex");
  return parseInstanceId(`local-${digest.slice(0, 12)}`);
}

/** Ids become paths: anything else cannot be one of ours. */
function isOurs(id: InstanceId): boolean {
  return /^local-[0-9a-f]{12}$/.test(id);
}

function refuseImpossible(spec: InstanceSpec): void {
  const no = (what: string): Fault =>
    new Fault("invalid_argument", `provider local has no ${what}`, { provider: "local", sandboxId: spec.sandboxId });
  if (spec.gpus > 0) throw no(`GPUs: ${spec.gpus} were asked for`);
  if (spec.instanceType !== undefined)
    throw no(`instance types: "${spec.instanceType}" was asked for, use vcpus and memory`);
  if (spec.image !== undefined)
    throw no(`choice of images: "${spec.image}" was asked for, imageDir is the one there is`);
}
