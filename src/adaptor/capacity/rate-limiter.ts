import type { Call } from "../../base/call.ts";
import { type Clock, realClock } from "../../base/clock.ts";
import { Fault } from "../../base/fault.ts";
import type {
  CloudAccount,
  RateLimit,
  RequestCost,
  RequestFamily,
  RequestGate,
  RequestPass,
} from "../../provider/index.ts";
import { FamilyLimiter, type Wish } from "./family-limiter.ts";

export interface RateLimiterOptions {
  readonly account: Pick<CloudAccount, "families">;
  /** In place of the published ones, by family. */
  readonly families?: Readonly<Record<string, Partial<RequestFamily>>>;
  /** How many adaptors share the account: each has its part of every bucket. */
  readonly adaptors?: number;
  readonly clock?: Clock;
}

/** How a family is doing, for metrics. */
export interface FamilyStatus {
  readonly family: string;
  readonly waiting: number;
  readonly throttled: number;
  /** Share of the published rate that is counted on. */
  readonly factor: number;
}

/**
 * Lets requests to one cloud account go as fast as its token buckets allow, and no faster: all of the adaptor's requests
 * pass here, so those of different work don't get each other throttled.
 */
export class RateLimiter implements RequestGate {
  readonly #families: ReadonlyMap<string, FamilyLimiter>;

  constructor({ account, families = {}, adaptors = 1, clock = realClock }: RateLimiterOptions) {
    this.#families = new Map(
      Object.entries(account.families).map(([name, published]) => {
        const family = { ...published, ...families[name] };
        return [name, new FamilyLimiter(shareOf(family, adaptors), clock)];
      }),
    );
  }

  async enter(family: string, cost: RequestCost, call: Call): Promise<RequestPass> {
    const limiter = this.#family(family);
    await limiter.take({ atLeast: () => cost.instances, atMost: () => cost.instances }, call);
    return limiter.pass(cost);
  }

  admitted(family: string, cost: RequestCost): RequestPass {
    return this.#family(family).pass(cost);
  }

  /** Takes one request's share ahead. @returns how many instances it may ask for; 0 when it is not wanted any more */
  admit(family: string, wish: Wish, call: Call): Promise<number> {
    return this.#family(family).take(wish, call);
  }

  /** Instances per second in the long run. */
  instancesPerSecond(family: string): number {
    const { instances } = this.#family(family);
    return instances === undefined ? Number.POSITIVE_INFINITY : instances.limit.perSecond * instances.factor;
  }

  status(): readonly FamilyStatus[] {
    return [...this.#families].map(([family, { waiting, throttled, requests, instances }]) => {
      return { family, waiting, throttled, factor: Math.min(requests.factor, instances?.factor ?? 1) };
    });
  }

  #family(name: string): FamilyLimiter {
    const known = this.#families.get(name);
    if (known === undefined) throw new Fault("internal", `requests of family ${name} have no limits`);
    return known;
  }
}

function shareOf({ requests, instances }: RequestFamily, adaptors: number): RequestFamily {
  const part = ({ burst, perSecond }: RateLimit): RateLimit => {
    return { burst: Math.max(1, burst / adaptors), perSecond: perSecond / adaptors };
  };
  return { requests: part(requests), ...(instances === undefined ? {} : { instances: part(instances) }) };
}
