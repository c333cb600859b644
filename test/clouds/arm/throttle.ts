import { ArmError } from "./arm-error.ts";
import { TokenBucket } from "./clock.ts";
import type { Route } from "./route.ts";
import type { Subscription } from "./subscription.ts";

/** Request limits as the subscription's knobs say them. */
export class Throttle {
  readonly #cloud: Subscription;
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(cloud: Subscription) {
    this.#cloud = cloud;
  }

  /**
   * Takes a token. A request that is throttled costs nothing.
   * @returns headers that tell what is left
   * @throws ArmError 429 as Compute and Resource Manager word it
   */
  enter({ group, method }: Route): Readonly<Record<string, string>> {
    const own = group === undefined ? undefined : this.#bucket(group);
    const all = this.#bucket("*");
    if (all !== undefined && !all.has(1)) throw this.#subscriptionThrottled();
    if (own !== undefined && !own.has(1)) throw this.#groupThrottled(group ?? "");
    own?.take(1);
    all?.take(1);
    const kind = method === "GET" ? "reads" : method === "DELETE" ? "deletes" : "writes";
    return {
      [`x-ms-ratelimit-remaining-subscription-${kind}`]: "199",
      ...(own && group && { "x-ms-ratelimit-remaining-resource": `Microsoft.Compute/${group};${own.has(1) ? 1 : 0}` }),
    };
  }

  #bucket(name: string): TokenBucket | undefined {
    const size = this.#cloud.knobs.buckets.get(name);
    if (size === undefined) return undefined;
    const bucket = this.#buckets.get(name) ?? new TokenBucket(size, this.#cloud.clock);
    this.#buckets.set(name, bucket);
    return bucket;
  }

  #after(name: string): string {
    const refill = this.#cloud.knobs.buckets.get(name)?.refillPerSecond ?? 1;
    return String(Math.max(1, Math.ceil(1 / refill)));
  }

  #subscriptionThrottled(): ArmError {
    const after = this.#after("*");
    const message = `Number of requests for subscription '${this.#cloud.id}' exceeded the limit for time interval '00:01:00'. Please try again after '${after}' seconds.`;
    return new ArmError(429, "SubscriptionRequestsThrottled", message, { headers: { "retry-after": after } });
  }

  /** Source: learn.microsoft.com "Troubleshooting API throttling errors" of Compute. */
  #groupThrottled(group: string): ArmError {
    const detail = { operationGroup: group, allowedRequestCount: 1, measuredRequestCount: 2 };
    return new ArmError(
      429,
      "OperationNotAllowed",
      "The server rejected the request because too many requests have been received for this subscription.",
      {
        details: [{ code: "TooManyRequests", target: group, message: JSON.stringify(detail) }],
        headers: {
          "retry-after": this.#after(group),
          "x-ms-ratelimit-remaining-resource": `Microsoft.Compute/${group};0`,
        },
      },
    );
  }
}
