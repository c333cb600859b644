import { Gauge, type Registry } from "prom-client";
import type { CircuitBreaker } from "./circuit-breaker.ts";
import type { RateLimiter } from "./rate-limiter.ts";
import type { Shortages } from "./shortages.ts";

/** Shows limits, shortages and circuits in the adaptor's metrics. */
export function registerCapacityMetrics(
  registers: Registry[],
  deps: {
    readonly limiter: RateLimiter | undefined;
    readonly shortages: Shortages;
    readonly breaker: CircuitBreaker;
  },
): void {
  const { limiter, shortages, breaker } = deps;
  const byFamily = (name: string, help: string, key: "waiting" | "throttled" | "factor"): void => {
    new Gauge({
      ...{ name, help, labelNames: ["family"], registers },
      collect() {
        for (const status of limiter?.status() ?? []) this.set({ family: status.family }, status[key]);
      },
    });
  };
  byFamily("kata_remote_cloud_requests_waiting", "Requests that wait for their turn at the account's limit", "waiting");
  byFamily(
    "kata_remote_cloud_requests_throttled",
    "Requests that the cloud refused for its limit, since the start",
    "throttled",
  );
  byFamily("kata_remote_cloud_rate_factor", "Share of the published limit that is counted on", "factor");
  new Gauge({
    ...{ name: "kata_remote_capacity_shortages", help: "Places or quotas that are believed to be short", registers },
    collect() {
      this.set(shortages.size);
    },
  });
  new Gauge({
    ...{ name: "kata_remote_circuits_open", help: "Pods and classes for which no VM is made at the moment", registers },
    async collect() {
      this.set(await breaker.countOpen());
    },
  });
}
