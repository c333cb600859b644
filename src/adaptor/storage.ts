import { join } from "node:path";
import { type Call, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import type { Finding } from "../provider/index.ts";
import type { AdaptorConfig } from "./config.ts";
import { EmbeddedQueue, type OperationQueue, type OperationRunsDeps } from "./operation/index.ts";
import { type AdaptorStore, checkStoreConfig, SqliteStore } from "./store/index.ts";

/** Store and queue that belong together. Neither owns the other. */
export interface Storage {
  openStore(): Promise<AdaptorStore>;
  createQueue(deps: OperationRunsDeps): OperationQueue;
}

type StorageConfig = Pick<AdaptorConfig, "stateDir" | "store" | "cluster">;

const CHECK_MS = 5_000;

/** What the configuration chooses. Redis' libraries are read only for Redis. @throws Fault invalid_argument */
export async function openStorage(config: StorageConfig, log: Logger, now: () => Date): Promise<Storage> {
  const { stateDir } = config;
  checkStoreConfig(config.store);
  if (config.store.kind === "embedded") {
    return {
      openStore: () => SqliteStore.open(join(stateDir, "store.sqlite"), now),
      createQueue: (deps) => new EmbeddedQueue(deps),
    };
  }
  const [{ RedisStore, RedisTarget }, { BullmqQueue }] = await Promise.all([
    import("./store/redis/index.ts"),
    import("./operation/bullmq/index.ts"),
  ]);
  const target = await RedisTarget.read(config.store);
  const { leaseMs } = config.store;
  const prefix = `{kata-remote:${config.store.prefix ?? config.cluster}}`;
  return {
    openStore: () => RedisStore.open({ target, prefix, stateDir, leaseMs, log, now }),
    createQueue: (deps) =>
      new BullmqQueue({ ...deps, target, prefix: `${prefix}:queue`, sweepMs: Math.min(5_000, leaseMs / 3) }),
  };
}

/** Lines of `kata-remote check` about where the adaptor keeps its truth. Changes nothing. */
export async function checkStorage(config: StorageConfig, call: Call): Promise<readonly Finding[]> {
  try {
    checkStoreConfig(config.store);
    if (config.store.kind === "embedded") {
      return [{ subject: "store", state: "ok", detail: `embedded, in ${config.stateDir}: one adaptor` }];
    }
    const { checkRedis, RedisTarget } = await import("./store/redis/index.ts");
    return await checkRedis(await RedisTarget.read(config.store), withDeadline(CHECK_MS, call));
  } catch (e) {
    return [{ subject: "store", state: "error", detail: Fault.from(e).fullMessage, remedy: "correct [store]" }];
  }
}
