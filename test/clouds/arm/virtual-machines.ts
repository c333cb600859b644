import { join } from "node:path";
import { freeNetwork, type Machine, MachineHost } from "../machines/index.ts";
import { ArmEndpoint } from "./endpoint.ts";
import { lastName } from "./resource-id.ts";
import type { EndpointOptions } from "./service.ts";
import type { LaunchedVm, Subscription, VmHost } from "./subscription.ts";

export interface ArmCloudOptions extends Omit<EndpointOptions, "folder" | "addressPrefix"> {
  /** For the machines' disks; is made, and removed with the cloud. */
  readonly folder: string;
  readonly acceleration?: "kvm" | "tcg";
  /** Most memory of a machine, MiB; 768 unless given: a size has more than the test host. */
  readonly memoryMiB?: number;
}

/** Source: learn.microsoft.com "TCP/IP performance tuning for Azure VMs". */
const MTU = 1500;
const METADATA = "169.254.169.254";
/** The fabric: where a guest's agent reports. */
const FABRIC = "168.63.129.16";
const MEMORY_MIB = 768;
const MAX_VCPUS = 2;

/** A subscription whose VMs are machines of this host, booted through UEFI from what was published. */
export class ArmWithMachines implements AsyncDisposable {
  readonly endpoint: ArmEndpoint;
  readonly machines: MachineHost;

  private constructor(endpoint: ArmEndpoint, machines: MachineHost) {
    this.endpoint = endpoint;
    this.machines = machines;
  }

  static async open(options: ArmCloudOptions): Promise<ArmWithMachines> {
    const { folder, acceleration = "tcg", memoryMiB = MEMORY_MIB, ...rest } = options;
    const cidr = await freeNetwork();
    const endpoint = await ArmEndpoint.start({ ...rest, addressPrefix: cidr.split(".").slice(0, 2).join(".") });
    const { cloud, metadata } = endpoint;
    const [network] = cloud.all("Microsoft.Network/virtualNetworks");
    const subnets = (network?.subnets ?? []).map((s) => ({ id: s.name, cidr: s.prefix }));
    try {
      const machines = await MachineHost.open({
        ...{ folder: join(folder, "machines"), cidr, subnets, mtu: MTU, acceleration },
        metadataAddresses: [METADATA, FABRIC],
        metadata: (request) => {
          const vmId = cloud.all("Microsoft.Compute/virtualMachines").find((vm) => vm.vmId === request.machineId)?.id;
          // Who is no VM reaches no metadata service at all.
          return vmId === undefined ? undefined : metadata.answer({ ...request, vmId });
        },
      });
      cloud.host = new VirtualMachines(cloud, machines, memoryMiB);
      return new ArmWithMachines(endpoint, machines);
    } catch (e) {
      await endpoint[Symbol.asyncDispose]();
      throw e;
    }
  }

  /** Everything in the subscription that tests have made, and everything of it that is still on this host. */
  async leftovers(): Promise<string[]> {
    const onHost = await this.machines.leftovers();
    return [
      ...this.endpoint.cloud.leftovers().map(({ kind, id }) => `${kind} ${lastName(id)}`),
      ...this.machines.machines().map((m) => `machine ${m.spec.id}`),
      ...onHost,
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endpoint[Symbol.asyncDispose]();
    await this.machines[Symbol.asyncDispose]();
  }
}

/** What stands behind the VMs. Machines have the VM's unique id: ARM ids are used again. */
class VirtualMachines implements VmHost {
  readonly guestsReport = true;
  readonly #cloud: Subscription;
  readonly #machines: MachineHost;
  readonly #memoryMiB: number;
  /** Machines that are being made. */
  readonly #starting = new Map<string, Promise<void>>();

  constructor(cloud: Subscription, machines: MachineHost, memoryMiB: number) {
    this.#cloud = cloud;
    this.#machines = machines;
    this.#memoryMiB = memoryMiB;
  }

  async launch(vm: LaunchedVm): Promise<undefined> {
    const image = vm.image?.file;
    // The answer to the creation does not wait for it, as it does not at Azure.
    const starting = this.#machines.launch({
      ...{ id: vm.vmId, platform: "azure", model: vm.size, vcpus: Math.min(vm.vcpus, MAX_VCPUS) },
      memoryMiB: Math.min(vm.memoryMiB, this.#memoryMiB),
      disks: [
        { id: "os", sizeGiB: vm.osDiskGiB, ...(image && { image }) },
        ...vm.dataDisks.map(({ name, lun, sizeGiB }) => ({ id: `lun${lun}`, lun, sizeGiB, kept: this.#kept(name) })),
      ],
      nics: vm.nics.map(({ id, address }) => ({ id: lastName(id), address })),
    });
    const started = starting.then(
      (machine) => void this.#watch(machine, vm),
      (e: unknown) => {
        console.error(`ARM endpoint: ${vm.name} was not started:`, e);
        const stored = this.#stored(vm.id);
        if (stored !== undefined) stored.power = "stopped";
      },
    );
    this.#starting.set(vm.vmId, started);
    void started.then(() => this.#starting.delete(vm.vmId));
  }

  async stop(id: string): Promise<void> {
    await this.#machine(id)?.stop();
  }

  async start(id: string): Promise<void> {
    await this.#machine(id)?.start();
  }

  async remove(id: string): Promise<void> {
    await this.#starting.get(this.#stored(id)?.vmId ?? "");
    await this.#machine(id)?.remove();
  }

  async console(id: string): Promise<string | undefined> {
    return this.#machine(id)?.console();
  }

  /** A VM that its guest has powered off is stopped, and costs money on. */
  async #watch(machine: Machine, vm: LaunchedVm): Promise<void> {
    const stored = this.#stored(vm.id);
    const { how, detail } = await machine.ended;
    if (how === "stopped") return;
    if (how === "crashed") console.error(`ARM endpoint: ${vm.name}: ${detail}`);
    if (stored !== undefined) stored.power = "stopped";
  }

  /** A disk may outlive its VM, and what is on it too. */
  #kept(name: string): string {
    return join(this.#machines.folder, `disk-${name}.qcow2`);
  }

  #stored(id: string) {
    return this.#cloud.find("Microsoft.Compute/virtualMachines", id);
  }

  #machine(id: string): Machine | undefined {
    const vmId = this.#stored(id)?.vmId;
    return vmId === undefined ? undefined : this.#machines.machine(vmId);
  }
}
