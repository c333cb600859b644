import type { Instance as Ec2Instance } from "@aws-sdk/client-ec2";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import { race } from "../../src/base/retry.ts";

const TIMEOUT_MS = 120_000;
/** A listing that only background work wants waits so many windows for more of it: thousands of VMs are many pages. */
const BACKGROUND_WINDOWS = 100;

interface Listing {
  background: boolean;
  /** Lets it begin. */
  readonly start: () => void;
  readonly result: Promise<readonly Ec2Instance[]>;
}

/**
 * Listings of a cluster: who asks within a short window gets the same one. So loops with one interval share theirs from
 * the first one on. It begins after the last of them has asked,
 * so it shows whatever each of them knew of.
 */
export class InstanceLister {
  readonly #deps: {
    readonly list: (cluster: string, call: Call) => Promise<readonly Ec2Instance[]>;
    readonly windowMs: number;
    readonly clock: Clock;
  };
  readonly #open = new Map<string, Listing>();

  constructor(deps: {
    readonly list: (cluster: string, call: Call) => Promise<readonly Ec2Instance[]>;
    readonly windowMs: number;
    readonly clock: Clock;
  }) {
    this.#deps = deps;
  }

  list(cluster: string, call: Call): Promise<readonly Ec2Instance[]> {
    const listing = this.#open.get(cluster) ?? this.#begin(cluster);
    if (call.background !== true && listing.background) {
      listing.background = false;
      this.#deps.clock.after(this.#deps.windowMs, listing.start);
    }
    return race(listing.result, call);
  }

  #begin(cluster: string): Listing {
    const { list, windowMs, clock } = this.#deps;
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(BACKGROUND_WINDOWS * windowMs, resolve);
    const listing: Listing = {
      ...{ background: true, start: resolve },
      result: promise.then(() => {
        this.#open.delete(cluster);
        // Of all who wait, whoever of them gives up.
        return list(cluster, { ...withDeadline(TIMEOUT_MS), background: listing.background });
      }),
    };
    listing.result.catch(() => undefined); // each of them sees it; should all have given up, nobody does
    this.#open.set(cluster, listing);
    return listing;
  }
}
