import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { type Clock, realClock } from "../base/clock.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate } from "../base/files.ts";
import type { SandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import { CertificateAuthority, Sealer } from "../identity/index.ts";
import type { Provider } from "../provider/index.ts";
import { renderUserData } from "../userdata/index.ts";
import { handleBatches, openAccount } from "./account.ts";
import { Metrics } from "./api/index.ts";
import type { AdaptorConfig } from "./config.ts";
import type { OperationQueue } from "./operation/index.ts";
import {
  type AdaptorEvent,
  collectInstanceHandler,
  Events,
  JoinTokens,
  Limits,
  NodeSessions,
  type PodName,
  type PodVmDeps,
  PodVms,
  Problems,
  type PullSecretLookup,
  Recovery,
  StockGuests,
  startVmHandler,
  stopVmHandler,
} from "./podvm/index.ts";
import {
  type LoopStatus,
  Loops,
  LostInstances,
  LostNodes,
  OrphanInstances,
  type Reconciler,
  Recoveries,
  StuckSandboxes,
} from "./reconcile/index.ts";
import { openStorage } from "./storage.ts";
import type { AdaptorStore } from "./store/index.ts";

export interface AdaptorDeps {
  /** The caller's: it outlives the adaptor and is closed by the caller. */
  readonly provider: Provider;
  readonly log: Logger;
  readonly now?: () => Date;
  /** For waits; the machine's own unless given. */
  readonly clock?: Clock;
  /** Finds `auth.json` of a pod whose VM has the stock image; absent: none has one. */
  readonly pullSecrets?: PullSecretLookup;
  /** Told of each event as it is noted, with the sandbox's pod where it is about one. */
  readonly onEvent?: (event: AdaptorEvent, pod: PodName | undefined) => void;
  /** Between the store that the configuration chooses and the adaptor: for tests that watch or disturb it. */
  readonly wrapStore?: (store: AdaptorStore) => AdaptorStore;
}

/** A VM that the cloud takes away ends its pod with the cloud's reason, so it is to be seen before its node misses it, ms. */
const FEW_INTERVAL_MS = 10_000;
/** How long one key seals user-data of the stock image, ms. */
const SEAL_KEY_MS = 90 * 24 * 3_600_000;

/** The adaptor without its doors. */
export interface Engine {
  readonly service: PodVms;
  readonly store: AdaptorStore;
  readonly ca: CertificateAuthority;
  readonly metrics: Metrics;
  /** What operators look at and change. */
  readonly operator: Pick<PodVmDeps, "recovery" | "events"> & {
    readonly problems: Problems;
    readonly tokens: JoinTokens;
    readonly loops: () => readonly LoopStatus[];
  };
}

/** Opens everything but the doors, inside out; what is opened goes into `parts`, whose end closes it outside in. */
export async function openEngine(
  config: AdaptorConfig,
  deps: AdaptorDeps,
  parts: AsyncDisposableStack,
): Promise<Engine> {
  const { provider, log } = deps;
  const { clock } = deps;
  const now = deps.now ?? (() => (clock ?? realClock).now());
  await mkdirPrivate(config.stateDir);
  const storage = await openStorage(config, log, now);
  const opened = parts.use(await storage.openStore());
  const store = deps.wrapStore?.(opened) ?? opened;
  const ca = await CertificateAuthority.open(join(config.stateDir, "ca"), { now });
  if (store.operations.leaseMs !== undefined) await agreeOnCa(store, ca, config.stateDir);
  const shared = store.operations.leaseMs !== undefined;
  // Adaptors of one store have copies of the directory, and must all be able to open what one of them sealed.
  const sealer = await Sealer.open(join(config.stateDir, "ca"), {
    now,
    ...(shared ? {} : { rotateAfterMs: SEAL_KEY_MS }),
  });
  const metrics = new Metrics(store);
  const onOver: Metrics["operationOver"] = (operation) => metrics.operationOver(operation);
  const queue = parts.use(
    storage.createQueue({ store: store.operations, log, now, onOver, ...(clock === undefined ? {} : { clock }) }),
  );
  const account = parts.use(
    await openAccount(config.capacity, { store, queue, provider, log, now, clock, registry: metrics.registry }),
  );
  const podVmDeps: PodVmDeps = {
    ...{ store, queue, provider, ca, log, now, clock, cluster: config.cluster, defaults: config.vm },
    limits: parts.use(await Limits.open(store, config.limits)),
    sessions: new NodeSessions({ store, now, rebootQuietMs: config.nodes.rebootQuietMs }),
    recovery: new Recovery({ store }),
    events: new Events({ log, now, onEvent: deps.onEvent && tellWithPod(store, deps.onEvent) }),
    ...account.deps,
    userData: (volumes = []) =>
      renderUserData({ caPem: ca.caPem, disks: { scratch: provider.scratchDisk === true, volumes } }),
    stock: new StockGuests({
      ...{ sealer, provider, now, pullSecrets: deps.pullSecrets },
      ...(shared ? { agreeOnKey: (id) => agreeOnSealKey(store, id, config.stateDir) } : {}),
    }),
    consoleWaitMs: config.limits.consoleWaitMs,
  };
  handleOperations(queue, podVmDeps, config);
  await queue.start();

  const service = new PodVms(podVmDeps);
  const { silentMs } = config.nodes;
  const { stuckDeleteMs } = config.reconcile;
  const problems = new Problems({ ...podVmDeps, silentMs, stuckDeleteMs });
  metrics.showProblems(problems);
  const onPass: Metrics["reconciled"] = (status) => metrics.reconciled(status);
  const situation = (): string => podVmDeps.recovery.situation;
  const loops = parts.use(
    new Loops({ facts: store.facts, log, now, onPass, situation, ...(clock === undefined ? {} : { clock }) }),
  );
  loops.start(reconcilers(config, podVmDeps, (id, reason) => service.forgetNode(id, reason)));
  const { recovery, events } = podVmDeps;
  const tokens = new JoinTokens({ store, ca, now });
  return { service, store, ca, metrics, operator: { recovery, events, problems, tokens, loops: () => loops.status } };
}

function tellWithPod(store: AdaptorStore, tell: NonNullable<AdaptorDeps["onEvent"]>): (event: AdaptorEvent) => void {
  return (event) => {
    const { sandbox } = event;
    if (sandbox === undefined) return tell(event, undefined);
    store.sandboxes.get(sandbox as SandboxId).then(
      (record) => tell(event, record?.pod),
      () => tell(event, undefined), // the store is away for a moment: it is told all the same
    );
  };
}

/**
 * What one adaptor of a store sealed the others must be able to open.
 * @throws Fault failed_precondition when this one has another key
 */
async function agreeOnSealKey(store: AdaptorStore, id: string, stateDir: string): Promise<void> {
  const agreed = await store.agree("seal-key", id);
  if (agreed === id) return;
  const message = `${join(stateDir, "ca", "seal.keys")} has not the key ${agreed} in first place, which the adaptors of this store use: copy that file from one of them`;
  throw new Fault("failed_precondition", message);
}

/**
 * Adaptors of one store sign for each other's nodes and guests: they need the same CA.
 * @throws Fault failed_precondition when this one's is another
 */
async function agreeOnCa(store: AdaptorStore, ca: CertificateAuthority, stateDir: string): Promise<void> {
  const own = new X509Certificate(ca.caPem).fingerprint256;
  const agreed = await store.agree("ca", own);
  if (agreed === own) return;
  throw new Fault(
    "failed_precondition",
    `${join(stateDir, "ca")} holds another CA (${own}) than the adaptors of this store use (${agreed}): copy that directory from one of them; if it is lost, remove "agreed:ca" from the store's meta hash`,
  );
}

function handleOperations(queue: OperationQueue, deps: PodVmDeps, { limits, capacity }: AdaptorConfig): void {
  const { concurrentStarts, concurrentStops, startAttempts, startTimeoutMs, stopTimeoutMs } = limits;
  const forever = Number.POSITIVE_INFINITY;
  // Deletes go first: they are what frees the room that a create needs.
  queue.handle("stop-vm", stopVmHandler(deps), {
    priority: 0,
    concurrency: concurrentStops,
    attempts: forever,
    timeoutMs: stopTimeoutMs,
  });
  queue.handle("collect-instance", collectInstanceHandler(deps), {
    priority: 5,
    concurrency: concurrentStops,
    attempts: forever,
    timeoutMs: stopTimeoutMs,
  });
  handleBatches(queue, deps, limits);
  queue.handle("start-vm", startVmHandler(deps), {
    priority: 10,
    concurrency: deps.launches === undefined ? concurrentStarts : capacity.batchStarts,
    attempts: startAttempts,
    timeoutMs: startTimeoutMs,
  });
}

function reconcilers(
  config: AdaptorConfig,
  deps: PodVmDeps,
  forget: (nodeId: string, reason: string) => Promise<unknown>,
): readonly Reconciler[] {
  const { intervalMs, lostIntervalMs, lostGraceMs, orphanGraceMs, retentionMs, massLossMs, stuckDeleteMs } =
    config.reconcile;
  const { silentMs, goneMs } = config.nodes;
  const { listIntervalMs = 0 } = deps.provider.account ?? {};
  return [
    new Recoveries({ ...deps, intervalMs: Math.max(lostIntervalMs, listIntervalMs) }),
    new StuckSandboxes({ ...deps, intervalMs, retentionMs, lostGraceMs, stuckDeleteMs }),
    new LostNodes({ ...deps, intervalMs, silentMs, goneMs, forget }),
    new OrphanInstances({ ...deps, intervalMs: Math.max(intervalMs, listIntervalMs), graceMs: orphanGraceMs }),
    new LostInstances({
      ...{ ...deps, intervalMs: Math.max(lostIntervalMs, listIntervalMs), massLossMs },
      fewIntervalMs: Math.min(Math.max(lostIntervalMs, FEW_INTERVAL_MS), Math.max(lostIntervalMs, listIntervalMs)),
      onListed: deps.launches && ((pairs) => deps.launches?.tagger.compare(pairs)),
    }),
  ];
}
