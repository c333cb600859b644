import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import type { Cloud } from "./cloud.ts";
import type { RedisPlace } from "./redis-place.ts";

export type StoreKind = "embedded" | "redis";
/**
 * `one` adaptor; two with the node at the `first` one; or two that are `balanced`: each connection of the node goes to the
 * next one that takes it.
 */
export type AdaptorSetup = "one" | "first" | "balanced";

/** How long an adaptor's lease lasts when there are two of them or one, ms. */
export const LEASE_MS = 1_500;

/** Files and sockets of one adaptor. */
export interface AdaptorPlace {
  readonly toml: string;
  readonly stateDir: string;
  readonly socket: string;
  readonly rest: string;
  readonly log: string;
}

/** Where adaptor number `n` (0 or 1) lives. The node dials `adaptor.sock`. */
export function adaptorPlace(folder: string, setup: AdaptorSetup, n: number): AdaptorPlace {
  const runDir = join(folder, "run");
  const suffix = n === 0 ? "" : "-2";
  const socket = setup === "balanced" && n === 0 ? "adaptor-1.sock" : `adaptor${suffix}.sock`;
  return {
    toml: join(folder, `adaptor${suffix}.toml`),
    stateDir: join(folder, "state", `adaptor${suffix}`),
    socket: join(runDir, socket),
    rest: join(runDir, `rest${suffix}.sock`),
    log: join(folder, `adaptor${suffix}.log`),
  };
}

/** Timings are short, so that bounds are. */
export function writeAdaptorConfig(place: AdaptorPlace, cloud: Cloud, redis: RedisPlace | undefined): void {
  const config = {
    stateDir: place.stateDir,
    cluster: "chaos",
    provider: cloud.provider,
    providers: { [cloud.provider]: cloud.providerConfig },
    store:
      redis === undefined
        ? { kind: "embedded" }
        : { kind: "redis", url: redis.url, leaseMs: LEASE_MS, timeoutMs: 1_500 },
    grpc: { socketPath: place.socket },
    rest: { socketPath: place.rest },
    nodes: { rebootQuietMs: 0, silentMs: 20_000, goneMs: 25_000 },
    reconcile: { intervalMs: 300, lostIntervalMs: 300, lostGraceMs: 3_000, orphanGraceMs: 2_000 },
    limits: { startTimeoutMs: 20_000, stopTimeoutMs: 20_000, consoleWaitMs: 1_000 },
  };
  writeFileSync(place.toml, stringify(config));
}

/** @returns the file's path */
export function writeNodeConfig(folder: string, options: { readonly realVms: boolean }): string {
  // A real VM boots for seconds, and for many on a busy machine, where anything is silent for seconds.
  const slow = options.realVms;
  const config = {
    runDir: join(folder, "run"),
    stateDir: join(folder, "state", "node"),
    keepAliveMs: 300,
    keepAliveDeadlineMs: slow ? 10_000 : 4_000,
    podNetwork: { bypassConntrack: false },
    remote: { patienceMs: 30_000 },
    shim: {
      // Longer than a case waits: who relies on it to end a start has let it hang.
      startVmTimeoutMs: 400_000,
      connectTimeoutMs: slow ? 90_000 : 15_000,
      guestLostAfterMs: slow ? 20_000 : 8_000,
    },
  };
  const path = join(folder, "node.toml");
  writeFileSync(path, stringify(config));
  return path;
}
