import type { VirtualMachine } from "@azure/arm-compute";
import type { Call } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { ArmApi } from "./arm-api.ts";
import { stateOf } from "./vm-state.ts";

/** A VM is looked at this often, ms. */
const EVERY_MS = 300_000;
/** In one pass. */
const MOST = 25;

/**
 * Finds VMs that were switched off from outside. A listing of a resource group does not say so (Azure gives power states
 * with a listing of the whole subscription only, which needs rights there), so a few VMs are looked at with each.
 */
export class PowerWatch {
  readonly #api: ArmApi;
  readonly #clock: Clock;
  readonly #lookedAt = new Map<string, number>();
  readonly #off = new Map<string, VirtualMachine>();

  constructor(deps: { readonly api: ArmApi; readonly clock: Clock }) {
    this.#api = deps.api;
    this.#clock = deps.clock;
  }

  /** @returns the listing with what is known of power states */
  async complete(vms: readonly VirtualMachine[], call: Call): Promise<readonly VirtualMachine[]> {
    const now = this.#clock.now().getTime();
    const names = new Set(vms.map(nameOfVm));
    for (const name of this.#lookedAt.keys()) if (!names.has(name)) this.#forget(name);
    // The youngest have been looked at when they were made.
    for (const name of names) if (!this.#lookedAt.has(name)) this.#lookedAt.set(name, now);
    const due = vms
      .filter(
        (vm) => vm.provisioningState === "Succeeded" && now - (this.#lookedAt.get(nameOfVm(vm)) ?? now) >= EVERY_MS,
      )
      .sort((a, b) => (this.#lookedAt.get(nameOfVm(a)) ?? 0) - (this.#lookedAt.get(nameOfVm(b)) ?? 0))
      .slice(0, MOST);
    await Promise.all(due.map((vm) => this.#look(nameOfVm(vm), now, call)));
    return vms.map((vm) => this.#off.get(nameOfVm(vm)) ?? vm);
  }

  async #look(name: string, now: number, call: Call): Promise<void> {
    const vm = await this.#api.getVm(name, call);
    this.#lookedAt.set(name, now);
    if (vm !== undefined && stateOf(vm).state === "failed") this.#off.set(name, vm);
    else this.#off.delete(name);
  }

  #forget(name: string): void {
    this.#lookedAt.delete(name);
    this.#off.delete(name);
  }
}

function nameOfVm(vm: VirtualMachine): string {
  return vm.name?.toLowerCase() ?? "";
}
