import type { VirtualMachine } from "@azure/arm-compute";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { type InstanceId, parseInstanceId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import type { Instance } from "../../src/provider/index.ts";
import type { Addresses } from "./addresses.ts";
import type { ArmApi } from "./arm-api.ts";
import { isVmName } from "./names.ts";
import type { Part, Parts } from "./parts.ts";
import { PowerWatch } from "./power-watch.ts";
import { clusterOf, fromAzureTags } from "./tags.ts";
import { toInstance } from "./to-instance.ts";
import { withReason } from "./vm-reader.ts";

const EPOCH = new Date(0);
const TIMEOUT_MS = 120_000;
/** Azure may show the parts of a new VM before it shows the VM, ms. */
const PARTS_AGE_MS = 120_000;
/** How long it is believed what the last listing has shown of parts without a VM, ms. */
const BELIEVED_MS = 60_000;
/** A listing that only background work wants waits so many windows for more of it: thousands of VMs are many pages. */
const BACKGROUND_WINDOWS = 100;

export interface VmListerDeps {
  readonly api: ArmApi;
  readonly parts: Parts;
  readonly addresses: Addresses;
  readonly windowMs: number;
  readonly clock: Clock;
  /** Told of each listing, complete. */
  readonly onListed: (vms: readonly VirtualMachine[]) => void;
}

interface Listing {
  background: boolean;
  readonly start: () => void;
  readonly result: Promise<readonly Instance[]>;
}

/**
 * Lists everything in the resource group that is ours, by tag: VMs, and what VMs that are gone have left behind, each as
 * the instance that it was of. Compute's own list is asked: it is complete when it has come to its end, while Resource
 * Graph shows what was some time ago. Who asks within a short window gets the same listing, which begins after the last
 * of them has asked.
 */
export class VmLister {
  readonly #deps: VmListerDeps;
  readonly #power: PowerWatch;
  #open: Listing | undefined;
  #orphansAt = Number.NEGATIVE_INFINITY;
  #orphans: ReadonlyMap<string, Instance> = new Map();

  constructor(deps: VmListerDeps) {
    this.#deps = deps;
    this.#power = new PowerWatch(deps);
  }

  async list(cluster: string, call: Call): Promise<readonly Instance[]> {
    this.#open ??= this.#begin();
    const listing = this.#open;
    if (call.background !== true && listing.background) {
      listing.background = false;
      this.#deps.clock.after(this.#deps.windowMs, listing.start);
    }
    return (await race(listing.result, call)).filter((i) => i.tags.cluster === cluster);
  }

  /** What is left of a VM that is gone, as the instance that it was of; undefined when that is nothing. */
  async orphan(id: InstanceId, call: Call): Promise<Instance | undefined> {
    if (this.#deps.clock.now().getTime() - this.#orphansAt >= BELIEVED_MS) await this.list("", call);
    return this.#orphans.get(id);
  }

  #begin(): Listing {
    const { clock, windowMs } = this.#deps;
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(BACKGROUND_WINDOWS * windowMs, resolve);
    const listing: Listing = {
      ...{ background: true, start: resolve },
      result: promise.then(() => {
        if (this.#open === listing) this.#open = undefined;
        // Of all who wait, whoever of them gives up.
        return this.#read({ ...withDeadline(TIMEOUT_MS), background: listing.background });
      }),
    };
    listing.result.catch(() => undefined); // each of them sees it; should all have given up, nobody does
    return listing;
  }

  async #read(call: Call): Promise<readonly Instance[]> {
    const { api, parts, addresses, onListed, clock } = this.#deps;
    const began = clock.now().getTime();
    // Parts first: what is made between the two listings is then a VM, and no part without one.
    const { found, nics, ips } = await parts.read(call);
    const all = await api.listVms(call);
    addresses.learn(nics, ips);
    const ours = all.filter((vm) => clusterOf(vm.tags) !== undefined);
    onListed(ours);
    const known = await this.#power.complete(ours, call);
    const vms = await Promise.all(known.map((vm) => withReason(vm, api, call)));
    const names = new Set(all.map((vm) => vm.name?.toLowerCase() ?? ""));
    const old = (part: Part): boolean =>
      !(began - Date.parse(fromAzureTags(part.tags, EPOCH).tags.created) < PARTS_AGE_MS);
    const left = found.filter((part) => !names.has(part.vm) && isVmName(part.vm) && old(part));
    const orphans = await this.#withoutVm(left, call);
    this.#orphans = new Map(orphans.filter((i) => i.addresses.length === 0).map((i) => [i.id, i]));
    this.#orphansAt = began;
    return [...vms.map((vm) => toInstance({ vm, addresses: addresses.of(vm.name?.toLowerCase() ?? "") })), ...orphans];
  }

  /** Each is asked for by its name: a list may not show yet what is new. */
  async #withoutVm(left: readonly Part[], call: Call): Promise<readonly Instance[]> {
    const byVm = [...Map.groupBy(left, (part) => part.vm)];
    return Promise.all(
      byVm.map(async ([name, parts]) => {
        const vm = await this.#deps.api.getVm(name, call);
        if (vm === undefined) return asInstance(name, parts);
        return toInstance({ vm, addresses: this.#deps.addresses.of(name) });
      }),
    );
  }
}

function asInstance(name: string, parts: readonly Part[]): Instance {
  const [first] = parts;
  const described = fromAzureTags(first?.tags, EPOCH);
  const left = parts.map((p) => `${p.kind} ${p.name}`).join(", ");
  return {
    ...{ id: parseInstanceId(name), ...described, state: "failed", addresses: [] },
    createdAt: new Date(Date.parse(described.tags.created) || 0),
    reason: `its VM is gone, ${left} is left`,
  };
}
