import type { VirtualMachine } from "@azure/arm-compute";
import type { NetworkInterface, NetworkInterfaceIPConfiguration, PublicIPAddress } from "@azure/arm-network";
import type { Call } from "../../src/base/call.ts";
import type { ArmApi } from "./arm-api.ts";
import { nameOf, nicName } from "./names.ts";
import { tag, VM_TAG } from "./tags.ts";

const MAX_KEPT = 20_000;

/**
 * Addresses of VMs, by name of the VM. An interface keeps its address for as long as it lives, so each is asked for until
 * it is known and never again.
 */
export class Addresses {
  readonly #api: ArmApi;
  readonly #usePublicIp: boolean;
  readonly #known = new Map<string, readonly string[]>();

  constructor(deps: { readonly api: ArmApi; readonly usePublicIp: boolean }) {
    this.#api = deps.api;
    this.#usePublicIp = deps.usePublicIp;
  }

  of(vm: string): readonly string[] {
    return this.#known.get(vm) ?? [];
  }

  /** Asks for the primary interface, where it is known which one that is. */
  async read(vm: VirtualMachine, call: Call): Promise<readonly string[]> {
    const name = vm.name ?? "";
    const known = this.of(name);
    const nics = vm.networkProfile?.networkInterfaces ?? [];
    const id = (nics.find((n) => n.primary === true) ?? nics[0])?.id;
    if (known.length > 0 || id === undefined) return known;
    const nic = await this.#api.getNic(id, call);
    if (nic === undefined) return [];
    const publicId = primaryOf(nic)?.publicIPAddress?.id;
    const ip = this.#usePublicIp && publicId !== undefined ? await this.#api.getPublicIp(publicId, call) : undefined;
    return this.#note(name, nic, ip?.ipAddress);
  }

  /** Takes them from listings. */
  learn(nics: readonly NetworkInterface[], ips: readonly PublicIPAddress[]): void {
    const publicAddresses = new Map(ips.map((ip) => [ip.id?.toLowerCase(), ip.ipAddress]));
    for (const nic of nics) {
      const vm = vmOf(nic);
      if (vm === "" || this.#known.has(vm) || !(nic.primary === true || nic.name === nicName(vm, 0))) continue;
      this.#note(vm, nic, publicAddresses.get(primaryOf(nic)?.publicIPAddress?.id?.toLowerCase()));
    }
  }

  forget(vm: string): void {
    this.#known.delete(vm);
  }

  #note(vm: string, nic: NetworkInterface, publicAddress: string | undefined): readonly string[] {
    const own = (nic.ipConfigurations ?? []).flatMap((c) => c.privateIPAddress ?? []);
    const primary = this.#usePublicIp ? publicAddress : primaryOf(nic)?.privateIPAddress;
    if (primary === undefined || primary === "") return [];
    const addresses = [...new Set([primary, ...own])];
    this.#known.set(vm, addresses);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= MAX_KEPT) break;
      this.#known.delete(oldest);
    }
    return addresses;
  }
}

/** Name of the VM that an interface is of; empty when it is nobody's. */
export function vmOf(nic: Pick<NetworkInterface, "virtualMachine" | "tags">): string {
  return (nameOf(nic.virtualMachine?.id) || (tag(nic.tags, VM_TAG) ?? "")).toLowerCase();
}

function primaryOf(nic: NetworkInterface): NetworkInterfaceIPConfiguration | undefined {
  return nic.ipConfigurations?.find((c) => c.primary === true) ?? nic.ipConfigurations?.[0];
}
