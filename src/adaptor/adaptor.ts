import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate } from "../base/files.ts";
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../identity/index.ts";
import type { Provider } from "../provider/index.ts";
import { renderUserData } from "../userdata/index.ts";
import { GrpcDoor, type GrpcDoorDeps, Metrics, RestDoor } from "./api/index.ts";
import { Admission } from "./capacity/index.ts";
import type { AdaptorConfig } from "./config.ts";
import type { OperationQueue } from "./operation/index.ts";
import { collectInstanceHandler, type PodVmDeps, PodVms, startVmHandler, stopVmHandler } from "./podvm/index.ts";
import { Loops, LostInstances, OrphanInstances, type Reconciler, StuckSandboxes } from "./reconcile/index.ts";
import { checkStorage, openStorage } from "./storage.ts";
import type { AdaptorStore } from "./store/index.ts";

export interface AdaptorDeps {
  /** The caller's: it outlives the adaptor and is closed by the caller. */
  readonly provider: Provider;
  readonly log: Logger;
  readonly now?: () => Date;
  /** Between the store that the configuration chooses and the adaptor: for tests that watch or disturb it. */
  readonly wrapStore?: (store: AdaptorStore) => AdaptorStore;
}

export interface Adaptor {
  /** Resolves when the doors are open and the work that an earlier adaptor left has been taken up. */
  start(): Promise<void>;
  /** Stops working, which hurts no VM: whatever was under way is taken up by the next start. */
  close(): Promise<void>;
  /** Where REST listens; undefined before start. */
  readonly restAddress: string | undefined;
}

/** The cloud API adaptor in this process. Nothing happens before start(). */
export function createAdaptor(config: AdaptorConfig, deps: AdaptorDeps): Adaptor {
  let opened = new AsyncDisposableStack();
  let restAddress: string | undefined;
  return {
    get restAddress() {
      return restAddress;
    },
    async start() {
      await using parts = new AsyncDisposableStack();
      restAddress = await open(config, deps, parts);
      opened = parts.move();
      deps.log.info(
        { provider: deps.provider.name, cluster: config.cluster, rest: restAddress, socket: config.grpc.socketPath },
        "adaptor ready",
      );
    },
    async close() {
      restAddress = undefined;
      await opened.disposeAsync();
    },
  };
}

/** Opens everything, inside out; what is opened goes into `parts`, whose end closes it outside in. */
async function open(config: AdaptorConfig, deps: AdaptorDeps, parts: AsyncDisposableStack): Promise<string> {
  const { provider, log } = deps;
  const now = deps.now ?? (() => new Date());
  await mkdirPrivate(config.stateDir);
  const storage = await openStorage(config, log, now);
  const opened = parts.use(await storage.openStore());
  const store = deps.wrapStore?.(opened) ?? opened;
  const ca = await CertificateAuthority.open(join(config.stateDir, "ca"), { now });
  if (store.operations.leaseMs !== undefined) await agreeOnCa(store, ca, config.stateDir);
  const metrics = new Metrics(store);
  const onOver: Metrics["operationOver"] = (operation) => metrics.operationOver(operation);
  const queue = parts.use(storage.createQueue({ store: store.operations, log, now, onOver }));
  const podVmDeps: PodVmDeps = {
    ...{ store, queue, provider, ca, log, now, cluster: config.cluster, defaults: config.vm },
    admission: new Admission({ sandboxes: store.sandboxes, limit: config.limits.sandboxes }),
    userData: renderUserData({ caPem: ca.caPem }),
    consoleWaitMs: config.limits.consoleWaitMs,
  };
  handleOperations(queue, podVmDeps, config.limits);
  await queue.start();

  const loops = parts.use(new Loops({ log }));
  loops.start(reconcilers(config, podVmDeps));

  const service = new PodVms(podVmDeps);
  const doorDeps: GrpcDoorDeps = { service, metrics, log, version: { version: VERSION, provider: provider.name } };
  let ready = false;
  const { host, port, socketPath } = config.rest;
  const restAddress = socketPath === undefined ? { host, port } : { socketPath };
  const rest = await RestDoor.open(restAddress, {
    ...{ service, metrics, log },
    ready: () => {
      if (!ready) throw new Fault("unavailable", "the adaptor is starting");
    },
  });
  parts.use(rest);
  parts.use(await GrpcDoor.openSocket(config.grpc.socketPath, doorDeps));
  const { listen } = config.grpc;
  if (listen !== undefined) {
    const { keyPem } = newKeyPair();
    const certificatePem = await ca.signServer(makeCsr(keyPem, ""), listen.serverNames);
    const identity = { caPem: ca.caPem, certificatePem, keyPem };
    parts.use(await GrpcDoor.openNetwork(`${listen.host}:${listen.port}`, identity, doorDeps));
  }
  ready = true;
  const closing = new AbortController();
  parts.defer(() => closing.abort());
  void reportFindings(config, deps, { signal: closing.signal });
  return rest.address;
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

/** Says early what would make the first pod fail. It also has slow probes done before a pod waits for them. */
async function reportFindings(config: AdaptorConfig, { provider, log }: AdaptorDeps, call: Call): Promise<void> {
  for (const { state, ...finding } of await checkStorage(config, call)) {
    if (state === "error" && !call.signal.aborted) log.error(finding, "the store may lose what it acknowledges");
  }
  try {
    for (const { state, ...finding } of await provider.verify(call)) {
      if (state === "error") log.error(finding, "the provider lacks something that pods need");
      else log.debug(finding, "provider verified");
    }
  } catch (e) {
    if (!call.signal.aborted) log.warn({ err: e }, "the provider cannot be verified");
  }
}

function handleOperations(queue: OperationQueue, deps: PodVmDeps, limits: AdaptorConfig["limits"]): void {
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
  queue.handle("start-vm", startVmHandler(deps), {
    priority: 10,
    concurrency: concurrentStarts,
    attempts: startAttempts,
    timeoutMs: startTimeoutMs,
  });
}

function reconcilers(config: AdaptorConfig, deps: PodVmDeps): readonly Reconciler[] {
  const { intervalMs, lostIntervalMs, lostGraceMs, orphanGraceMs, retentionMs } = config.reconcile;
  return [
    new StuckSandboxes({ ...deps, intervalMs, retentionMs, lostGraceMs }),
    new OrphanInstances({ ...deps, intervalMs, graceMs: orphanGraceMs }),
    new LostInstances({ ...deps, intervalMs: lostIntervalMs }),
  ];
}
