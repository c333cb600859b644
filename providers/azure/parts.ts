import type { NetworkInterface, PublicIPAddress } from "@azure/arm-network";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Logger } from "../../src/base/log.ts";
import { race } from "../../src/base/retry.ts";
import { vmOf } from "./addresses.ts";
import type { ArmApi } from "./arm-api.ts";
import { kindOf } from "./faults.ts";
import { type AzureTags, isOwned, tag, VM_TAG } from "./tags.ts";

/** A network interface, disk or public address that was made with a VM. */
export interface Part {
  readonly kind: "network interface" | "disk" | "public address";
  readonly name: string;
  /** Name of the VM. */
  readonly vm: string;
  readonly tags: AzureTags;
}

export interface PartListing {
  readonly found: readonly Part[];
  /** Those of others too. */
  readonly nics: readonly NetworkInterface[];
  readonly ips: readonly PublicIPAddress[];
}

const TIMEOUT_MS = 120_000;

/** What VMs leave behind: looked for by tag, in a listing that all who ask at about the same time share. */
export class Parts {
  readonly #deps: { readonly api: ArmApi; readonly clock: Clock; readonly windowMs: number; readonly log: Logger };
  #open: Promise<readonly Part[]> | undefined;

  constructor(deps: {
    readonly api: ArmApi;
    readonly clock: Clock;
    readonly windowMs: number;
    readonly log: Logger;
  }) {
    this.#deps = deps;
  }

  /** Of one VM, whether or not that is still there. */
  async of(vm: string, call: Call): Promise<readonly Part[]> {
    this.#open ??= this.#begin();
    return (await race(this.#open, call)).filter((part) => part.vm === vm);
  }

  /** Of all VMs of all clusters in the resource group, with the listings that they are from. */
  async read(call: Call): Promise<PartListing> {
    const { api } = this.#deps;
    const [nics, disks, ips] = await Promise.all([api.listNics(call), api.listDisks(call), api.listPublicIps(call)]);
    const found = [
      ...nics.flatMap((nic) => toPart("network interface", nic, vmOf(nic))),
      ...disks.flatMap((disk) => toPart("disk", disk)),
      ...ips.flatMap((ip) => toPart("public address", ip)),
    ];
    return { found, nics, ips };
  }

  /** @returns whether all are gone or going: what another one still uses is left for the next time */
  async remove(parts: readonly Part[], call: Call): Promise<boolean> {
    const results = await Promise.all(parts.map((part) => this.#remove(part, call)));
    return results.every((gone) => gone);
  }

  async #remove({ kind, name, vm }: Part, call: Call): Promise<boolean> {
    const { api, log } = this.#deps;
    try {
      if (kind === "network interface") await api.deleteNic(name, call);
      else if (kind === "disk") await api.deleteDisk(name, call);
      else await api.deletePublicIp(name, call);
      log.info({ instance: vm, part: name, kind }, "a part that its VM had left behind is removed");
      return true;
    } catch (e) {
      // In use, or reserved for the VM that was to be made: Azure gives it free after 180 s.
      if (kindOf(e) !== "busy" && kindOf(e) !== "bad-request") throw e;
      log.debug({ instance: vm, part: name, kind, reason: Fault.from(e).fullMessage }, "a part cannot be removed yet");
      return false;
    }
  }

  #begin(): Promise<readonly Part[]> {
    const { clock, windowMs } = this.#deps;
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(windowMs, resolve);
    const listing = promise.then(async () => {
      this.#open = undefined;
      return (await this.read(withDeadline(TIMEOUT_MS))).found; // for all who wait, whoever of them gives up
    });
    listing.catch(() => undefined); // each of them sees it; should all have given up, nobody does
    return listing;
  }
}

interface Resource {
  readonly name?: string;
  readonly tags?: Record<string, string>;
}

function toPart(kind: Part["kind"], { name, tags }: Resource, vm = tag(tags, VM_TAG) ?? ""): readonly Part[] {
  if (name === undefined || tags === undefined || !isOwned(tags) || vm === "") return [];
  return [{ kind, name, vm: vm.toLowerCase(), tags }];
}
