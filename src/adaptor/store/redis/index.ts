export { checkRedis } from "./check-redis.ts";
export { RedisStore, type RedisStoreDeps } from "./redis-store.ts";
export { type Patience, type RedisClient, RedisTarget } from "./redis-target.ts";
