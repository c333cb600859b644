import type { VirtualMachine } from "@azure/arm-compute";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { race } from "../../src/base/retry.ts";
import type { Addresses } from "./addresses.ts";
import type { ArmApi } from "./arm-api.ts";
import type { VmView } from "./to-instance.ts";
import { stateOf } from "./vm-state.ts";

/** More than this are not asked for one by one: two listings show all of them. */
const SINGLES = 3;
const TIMEOUT_MS = 60_000;

interface Batch {
  readonly names: Set<string>;
  readonly result: Promise<ReadonlyMap<string, VmView>>;
}

interface Kept {
  readonly view: VmView | undefined;
  readonly at: number;
}

/**
 * Answers questions about single VMs with as few requests as there can be: all that are asked within a short window go
 * together, and what was read a moment ago is given again to whoever can do with that.
 */
export class VmReader {
  readonly #deps: {
    readonly api: ArmApi;
    readonly addresses: Addresses;
    readonly windowMs: number;
    readonly usePublicIp: boolean;
    readonly clock: Clock;
  };
  readonly #kept = new Map<string, Kept>();
  #open: Batch | undefined;

  constructor(deps: {
    readonly api: ArmApi;
    readonly addresses: Addresses;
    readonly windowMs: number;
    readonly usePublicIp: boolean;
    readonly clock: Clock;
  }) {
    this.#deps = deps;
  }

  /** @param maxAgeMs how old the answer may be @returns undefined when Azure shows none */
  async read(name: string, maxAgeMs: number, call: Call): Promise<VmView | undefined> {
    const kept = this.#kept.get(name);
    if (kept !== undefined && this.#deps.clock.now().getTime() - kept.at < maxAgeMs) return kept.view;
    if (this.#open === undefined) this.#open = this.#begin();
    this.#open.names.add(name);
    return (await race(this.#open.result, call)).get(name);
  }

  /** What was read last, if that was within the last minute. */
  kept(name: string): VmView | undefined {
    return this.#kept.get(name)?.view;
  }

  /** Takes what is known without asking. */
  note(name: string, view: VmView | undefined): void {
    this.#kept.delete(name); // to the end
    this.#kept.set(name, { view, at: this.#deps.clock.now().getTime() });
    this.#forgetOld();
  }

  #begin(): Batch {
    const { clock, windowMs } = this.#deps;
    const names = new Set<string>();
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(windowMs, resolve);
    const batch: Batch = {
      names,
      result: promise.then(async () => {
        if (this.#open === batch) this.#open = undefined;
        const call = withDeadline(TIMEOUT_MS); // of all who wait, whoever of them gives up
        const found = names.size > SINGLES ? await this.#list(names, call) : await this.#each([...names], call);
        for (const name of names) this.note(name, found.get(name));
        return found;
      }),
    };
    batch.result.catch(() => undefined); // each of them sees it; should all have given up, nobody does
    return batch;
  }

  async #each(names: readonly string[], call: Call): Promise<ReadonlyMap<string, VmView>> {
    const { api, addresses } = this.#deps;
    const views = await Promise.all(
      names.map(async (name) => {
        const vm = await api.getVm(name, call);
        return vm === undefined ? undefined : { vm, addresses: await addresses.read(vm, call) };
      }),
    );
    return byName(views.filter((v) => v !== undefined));
  }

  async #list(names: ReadonlySet<string>, call: Call): Promise<ReadonlyMap<string, VmView>> {
    const { api, addresses, usePublicIp } = this.#deps;
    const [vms, nics, ips] = await Promise.all([
      api.listVms(call),
      api.listNics(call),
      usePublicIp ? api.listPublicIps(call) : [],
    ]);
    addresses.learn(nics, ips);
    const wanted = vms.filter((vm) => names.has(vm.name?.toLowerCase() ?? ""));
    const seen = await Promise.all(wanted.map((vm) => withReason(vm, api, call)));
    return byName(seen.map((vm) => ({ vm, addresses: addresses.of(vm.name?.toLowerCase() ?? "") })));
  }

  #forgetOld(): void {
    const old = this.#deps.clock.now().getTime() - TIMEOUT_MS;
    for (const [name, { at }] of this.#kept) {
      if (at >= old) break; // the oldest come first
      this.#kept.delete(name);
    }
  }
}

/** A listing says that a VM has failed, and not why. */
export async function withReason(vm: VirtualMachine, api: ArmApi, call: Call): Promise<VirtualMachine> {
  if (vm.instanceView !== undefined || stateOf(vm).state !== "failed") return vm;
  return (await api.getVm(vm.name ?? "", call)) ?? vm;
}

function byName(views: readonly VmView[]): ReadonlyMap<string, VmView> {
  return new Map(views.map((view) => [view.vm.name?.toLowerCase() ?? "", view]));
}
