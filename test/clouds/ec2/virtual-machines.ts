import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CONSOLE_LISTENING } from "../../../src/guestwire/index.ts";
import { type DiskSpec, freeNetwork, type Machine, MachineHost } from "../machines/index.ts";
import type { Ec2Account, InstanceHost } from "./account.ts";
import { Ec2Endpoint, type ListenOptions } from "./endpoint.ts";
import type { StoredInstance, Volume } from "./instance.ts";
import { MetadataService } from "./metadata.ts";

export interface Ec2CloudOptions extends Omit<ListenOptions, "addressPrefix"> {
  /** For the machines' disks; is made, and removed with the cloud. */
  readonly folder: string;
  readonly acceleration?: "kvm" | "tcg";
  /** /16 of the account's network; one that this host has no route for unless given. */
  readonly cidr?: string;
  /** Most memory of a machine, MiB; 768 unless given: an instance type has more than the test host. */
  readonly memoryMiB?: number;
}

/** Jumbo frames inside of a VPC. Source: EC2 user guide, "Network MTU for your EC2 instance". */
const MTU = 9001;
/** What a machine has of an instance type's memory, MiB: the test host has not that much. */
const MEMORY_MIB = 768;
const MAX_VCPUS = 2;
/** How long a guest may take to boot, emulated on a busy host. */
const GUEST_MS = 240_000;

/** An EC2 account whose instances are virtual machines of this host, booted through UEFI from what was published. */
export class Ec2WithMachines implements AsyncDisposable {
  readonly endpoint: Ec2Endpoint;
  readonly machines: MachineHost;
  readonly metadata: MetadataService;

  private constructor(endpoint: Ec2Endpoint, machines: MachineHost, metadata: MetadataService) {
    this.endpoint = endpoint;
    this.machines = machines;
    this.metadata = metadata;
  }

  static async open(options: Ec2CloudOptions): Promise<Ec2WithMachines> {
    const { folder, acceleration = "tcg", memoryMiB = MEMORY_MIB, ...rest } = options;
    const cidr = options.cidr ?? (await freeNetwork());
    const addressPrefix = cidr.split(".").slice(0, 2).join(".");
    const endpoint = await Ec2Endpoint.start({ ...rest, addressPrefix });
    const { account } = endpoint;
    const metadata = new MetadataService(account);
    const subnets = account.subnets.map((s) => ({ id: s.id, cidr: `${s.prefix}.0/24` }));
    try {
      const machines = await MachineHost.open({
        ...{ folder, cidr, subnets, mtu: MTU, acceleration },
        metadata: (request) => metadata.answer(request),
      });
      account.host = new VirtualMachines(account, machines, memoryMiB);
      return new Ec2WithMachines(endpoint, machines, metadata);
    } catch (e) {
      await endpoint[Symbol.asyncDispose]();
      throw e;
    }
  }

  /** Everything that costs money in the account, and everything of it that is still on this host. */
  async leftovers(): Promise<string[]> {
    const onHost = await this.machines.leftovers();
    return [
      ...this.endpoint.account.leftovers().map(({ kind, id }) => `${kind} ${id}`),
      ...this.machines.machines().map((m) => `machine ${m.spec.id}`),
      ...onHost,
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endpoint[Symbol.asyncDispose]();
    await this.machines[Symbol.asyncDispose]();
  }
}

/** What stands behind the instances. */
class VirtualMachines implements InstanceHost {
  readonly #account: Ec2Account;
  readonly #machines: MachineHost;
  readonly #memoryMiB: number;
  /** Consoles of machines that are gone: EC2 shows them for a while. */
  readonly #consoles = new Map<string, string>();
  /** By volume. */
  readonly #plugging = new Map<string, Promise<void>>();

  constructor(account: Ec2Account, machines: MachineHost, memoryMiB: number) {
    this.#account = account;
    this.#machines = machines;
    this.#memoryMiB = memoryMiB;
  }

  async launch({ id, instance }: { readonly id: string; readonly instance: StoredInstance }): Promise<undefined> {
    const disks = await Promise.all(instance.volumes.map((v) => this.#disk(v)));
    const nics = [instance.networkInterface, ...instance.moreInterfaces].map((n) => ({
      ...{ id: n.id, address: n.address, metadataHopLimit: instance.metadata.hopLimit },
    }));
    const { type } = instance;
    // The answer to RunInstances does not wait for it, as it does not at EC2.
    this.#machines
      .launch({
        ...{ id, platform: "ec2", model: type.name, vcpus: Math.min(type.vcpus, MAX_VCPUS), disks, nics },
        memoryMiB: Math.min(type.memoryMiB, this.#memoryMiB),
      })
      .then((machine) => this.#watch(machine, instance))
      .catch((e: unknown) => {
        console.error(`EC2 endpoint: ${id} was not started:`, e);
        this.#account.end(id, "Server.InternalError", "Server.InternalError: Internal error on launch");
      });
  }

  async terminate(id: string): Promise<void> {
    const machine = this.#machines.machine(id);
    if (machine === undefined) return; // not started yet: #watch sees to it
    this.#consoles.set(id, await machine.console());
    await machine.remove();
  }

  async console(id: string): Promise<string> {
    return (await this.#machines.machine(id)?.console()) ?? this.#consoles.get(id) ?? "";
  }

  /** AttachVolume answers that it is being attached. */
  async attach(id: string, volume: Volume): Promise<void> {
    // Made on its own, it outlives the instance, and what is on it too.
    const kept = join(this.#machines.folder, `${volume.id}.qcow2`);
    const disk = { ...(await this.#disk(volume)), kept };
    const plugging = this.#plug(id, disk).catch((e: unknown) => {
      console.error(`EC2 endpoint: ${volume.id} did not come to ${id}:`, e);
    });
    this.#plugging.set(volume.id, plugging);
  }

  async detach(id: string, volume: Volume): Promise<void> {
    await this.#plugging.get(volume.id);
    this.#plugging.delete(volume.id);
    await this.#machines.machine(id)?.detachDisk(volume.id);
  }

  /** When its guest is up: firmware takes no disk that comes while it runs. */
  async #plug(id: string, disk: DiskSpec): Promise<void> {
    const lives = (): boolean => this.#account.instances.get(id)?.endedAt === undefined;
    for (const end = Date.now() + GUEST_MS; lives() && Date.now() < end; await delay(100)) {
      const machine = this.#machines.machine(id);
      if (machine !== undefined && (await machine.console()).includes(CONSOLE_LISTENING))
        return machine.attachDisk(disk);
    }
  }

  async #disk({
    id,
    sizeGiB,
    snapshotId,
  }: Volume): Promise<{ id: string; image?: string | undefined; sizeGiB: number }> {
    const image = snapshotId === undefined ? undefined : await this.#account.snapshots.file(snapshotId);
    if (image === undefined) return { id, sizeGiB };
    return { id, image, sizeGiB };
  }

  /** A machine that its guest has powered off is stopped or gone, as it was launched for. */
  async #watch(machine: Machine, { id, shutdownBehavior }: StoredInstance): Promise<void> {
    // Terminated while it was being made.
    if (this.#account.instances.get(id)?.endedAt !== undefined) return machine.remove();
    const { how, detail } = await machine.ended;
    if (how === "stopped") return;
    this.#consoles.set(id, await machine.console());
    if (how === "crashed") console.error(`EC2 endpoint: ${id}: ${detail}`);
    if (how === "powered-off" && shutdownBehavior === "stop") {
      const stored = this.#account.instances.get(id);
      if (stored !== undefined) stored.stopped = true;
      return;
    }
    const code = how === "crashed" ? "Server.InternalError" : "Client.InstanceInitiatedShutdown";
    this.#account.end(id, code, `${code}: Instance initiated shutdown`);
    await machine.remove();
  }
}
