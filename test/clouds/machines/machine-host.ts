import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Network } from "./network.ts";
import { QemuMachine } from "./qemu-machine.ts";
import type { Machine, MachineHostOptions, MachineSpec } from "./types.ts";

const METADATA_ADDRESS = "169.254.169.254";

/** Runs the machines of one cloud network on this host. Needs root, QEMU and OVMF. */
export class MachineHost implements AsyncDisposable {
  readonly options: MachineHostOptions;
  readonly #network: Network;
  readonly #machines = new Map<string, QemuMachine>();
  /** Of every machine that is there or being made. */
  readonly #reserved: Map<string, MachineSpec>;
  #nextTap = 0;

  private constructor(options: MachineHostOptions, network: Network, reserved: Map<string, MachineSpec>) {
    this.options = options;
    this.#network = network;
    this.#reserved = reserved;
  }

  /** Makes the network, with its metadata service. @throws Error naming what this host lacks */
  static async open(options: MachineHostOptions): Promise<MachineHost> {
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    const { cidr, subnets, mtu, metadata, metadataAddresses = [METADATA_ADDRESS] } = options;
    const reserved = new Map<string, MachineSpec>();
    const machineAt = (address: string): string | undefined =>
      [...reserved.values()].find((spec) => spec.nics.some((n) => n.address === address))?.id;
    const network = await Network.open({ cidr, subnets, mtu, metadata, metadataAddresses, machineAt });
    return new MachineHost(options, network, reserved);
  }

  /** This host's own address in the network: machines reach the test's processes there. */
  get hostAddress(): string {
    return this.#network.hostAddress;
  }

  /** Makes and starts a machine. @throws Error when the id or an address is taken, or QEMU does not start */
  async launch(spec: MachineSpec): Promise<Machine> {
    for (const other of this.#reserved.values()) {
      if (other.id === spec.id) throw new Error(`there is a machine ${spec.id}`);
      const taken = spec.nics.find((n) => other.nics.some((o) => o.address === n.address));
      if (taken !== undefined) throw new Error(`${taken.address} belongs to machine ${other.id}`);
    }
    this.#reserved.set(spec.id, spec);
    const dir = join(this.options.folder, spec.id);
    const onRemoved = (): void => {
      this.#machines.delete(spec.id);
      this.#reserved.delete(spec.id);
    };
    const taps = spec.nics.map(() => `tap${this.#nextTap++}`);
    const { mtu, acceleration = "tcg" } = this.options;
    try {
      const place = { dir, network: this.#network, taps, mtu, acceleration, onRemoved };
      const machine = await QemuMachine.create(spec, place);
      this.#machines.set(spec.id, machine);
      return machine;
    } catch (e) {
      for (const tap of taps) await this.#network.removeTap(tap).catch(() => undefined); // never made
      await rm(dir, { recursive: true, force: true });
      this.#reserved.delete(spec.id);
      throw e;
    }
  }

  get folder(): string {
    return this.options.folder;
  }

  machine(id: string): Machine | undefined {
    return this.#machines.get(id);
  }

  machines(): readonly Machine[] {
    return [...this.#machines.values()];
  }

  /** What of machines that were removed is still on this host: tap devices, files. A test must find none. */
  async leftovers(): Promise<string[]> {
    const taps = await this.#network.taps();
    const expected = [...this.#reserved.values()].reduce((sum, spec) => sum + spec.nics.length, 0);
    const folders = await readdir(this.options.folder);
    return [
      ...(taps.length > expected ? [`${taps.length - expected} tap devices too many: ${taps.join(", ")}`] : []),
      ...folders
        .filter((name) => !this.#reserved.has(name) && !name.endsWith(".qcow2"))
        .map((name) => `directory ${name}`),
    ];
  }

  /** Removes all machines and the network. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.machines().map((m) => m.remove()));
    await this.#network.close();
    await rm(this.options.folder, { recursive: true, force: true });
  }
}
