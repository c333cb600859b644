import type { Registry } from "prom-client";
import type { Clock } from "../base/clock.ts";
import { realClock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { Provider } from "../provider/index.ts";
import {
  type CapacityConfig,
  CircuitBreaker,
  RateLimiter,
  registerCapacityMetrics,
  Shortages,
} from "./capacity/index.ts";
import type { OperationQueue } from "./operation/index.ts";
import { createBatchHandler, Launches, type PodVmDeps } from "./podvm/index.ts";
import type { AdaptorStore } from "./store/index.ts";

export interface AccountDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly provider: Provider;
  readonly log: Logger;
  readonly now: () => Date;
  readonly clock?: Clock | undefined;
  /** Where its metrics are shown. */
  readonly registry?: Registry;
}

/** How this adaptor uses the cloud account: everything that the provider asks of the cloud goes through here from now on. */
export interface Account extends AsyncDisposable {
  /** For the pod VM service and its operations. */
  readonly deps: Pick<PodVmDeps, "breaker" | "launches">;
  readonly limiter: RateLimiter | undefined;
}

/** Requests of an account that nobody had limits for go out unlimited, and VMs are made one by one where batches cannot be. */
export async function openAccount(config: CapacityConfig, deps: AccountDeps): Promise<Account> {
  const { store, queue, provider, log, now, clock = realClock, registry } = deps;
  const { account, batches } = provider;
  const { families, adaptors, batchWindowMs: windowMs, batchLingerMs: lingerMs } = config;
  const limiter = account && new RateLimiter({ account, families, adaptors, clock });
  if (limiter !== undefined) account?.useGate(limiter);
  const shortages = new Shortages({ now });
  const breaker = await CircuitBreaker.open(config.breaker, { store, now, log });
  const limits = limiter === undefined || account === undefined ? undefined : { limiter, account };
  const launches =
    batches &&
    new Launches({
      ...{ store, queue, batches, limits, shortages, log, clock, windowMs, lingerMs },
      provider: provider.name,
    });
  if (registry !== undefined) registerCapacityMetrics([registry], { limiter, shortages, breaker });
  return {
    deps: { breaker, launches },
    limiter,
    async [Symbol.asyncDispose]() {
      await breaker[Symbol.asyncDispose]();
      await launches?.[Symbol.asyncDispose]();
    },
  };
}

/** Batches are few, and each is begun at once: who waits for the account's limit waits before. */
const CONCURRENT_BATCHES = 100;

/** Registers `create-batch`, where the provider makes batches. */
export function handleBatches(
  queue: OperationQueue,
  deps: PodVmDeps,
  limits: { readonly startTimeoutMs: number },
): void {
  const { launches } = deps;
  if (launches === undefined) return;
  queue.handle("create-batch", createBatchHandler({ ...deps, launches }), {
    priority: 8,
    concurrency: CONCURRENT_BATCHES,
    // Given up by its handler only, when the cloud has refused it: until then it may have made something.
    attempts: Number.POSITIVE_INFINITY,
    timeoutMs: limits.startTimeoutMs,
  });
}
