import { StoreConfig } from "../../src/adaptor/store/index.ts";
import { RedisStore, type RedisStoreDeps, RedisTarget } from "../../src/adaptor/store/redis/index.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";

export function redisTarget(config: Readonly<Record<string, unknown>>): Promise<RedisTarget> {
  return RedisTarget.read(parseConfig(StoreConfig, { kind: "redis", ...config }, "test"));
}

/** A store as an adaptor with this directory opens it. */
export async function openRedisStore(options: {
  readonly url?: string;
  /** Instead of the url: whatever [store] may say. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly dir: string;
  readonly leaseMs?: number;
  readonly deps?: Partial<RedisStoreDeps>;
}): Promise<RedisStore> {
  const { url, config = { url }, dir, leaseMs = 5_000, deps } = options;
  const target = await redisTarget(config);
  return RedisStore.open({ target, prefix: "{test}", stateDir: dir, leaseMs, log: silentLogger(), ...deps });
}
