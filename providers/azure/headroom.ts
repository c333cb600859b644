import type { RequestFamilyName } from "./request-families.ts";

/** What Azure says is left is believed for so long, ms. */
const BELIEVED_MS = 10_000;
/** Background work leaves so many requests to what somebody waits for. */
const RESERVE = 25;
const WAIT_MS = 2000;

/**
 * What Azure's answers say is left of its buckets: others use them too, and the adaptor's own count knows nothing of them.
 * Background work waits while there is little.
 */
export class Headroom {
  readonly #now: () => Date;
  readonly #left = new Map<RequestFamilyName, { readonly requests: number; readonly at: number }>();

  constructor(deps: { readonly now: () => Date }) {
    this.#now = deps.now;
  }

  /** @param header of an answer; names are in lower case */
  note(family: RequestFamilyName, header: (name: string) => string | undefined): void {
    const counts = [...ofResourceManager(header), ...ofService(header("x-ms-ratelimit-remaining-resource"))];
    if (counts.length > 0) this.#left.set(family, { requests: Math.min(...counts), at: this.#now().getTime() });
  }

  /** How long a background request of the family should hold back, ms. */
  waitMs(family: RequestFamilyName): number {
    const left = this.#left.get(family);
    if (left === undefined || this.#now().getTime() - left.at > BELIEVED_MS) return 0;
    return left.requests < RESERVE ? WAIT_MS : 0;
  }
}

/** Source: "Understand how Azure Resource Manager throttles requests", remaining requests. */
function ofResourceManager(header: (name: string) => string | undefined): readonly number[] {
  return ["reads", "writes", "deletes"].flatMap((kind) => {
    const left = Number(header(`x-ms-ratelimit-remaining-subscription-${kind}`) ?? Number.NaN);
    return Number.isFinite(left) ? [left] : [];
  });
}

/** `Microsoft.Compute/PutVM3Min;711,Microsoft.Compute/PutVM30Min;3704` */
function ofService(value: string | undefined): readonly number[] {
  return (value ?? "").split(",").flatMap((part) => {
    const [, left] = part.split(";");
    return left === undefined || !/^\d+$/.test(left.trim()) ? [] : [Number(left)];
  });
}
