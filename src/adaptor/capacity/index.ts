export { CapacityConfig } from "./capacity-config.ts";
export { registerCapacityMetrics } from "./capacity-metrics.ts";
export { type BreakerOptions, CircuitBreaker } from "./circuit-breaker.ts";
export { PlaceSearch } from "./place-search.ts";
export { RateLimiter } from "./rate-limiter.ts";
export { isShortage, Shortages } from "./shortages.ts";
