import { join } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault, type FaultCode } from "../../base/fault.ts";
import { parseInstanceId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, ended, race, sleep } from "../../base/retry.ts";
import { PodVmDefinition, StartVmEvent_Stage, StockGuest } from "../../gen/kataremote/podvm/v1/podvm.ts";
import { createClient, type ServiceClient, type TlsIdentity } from "../../grpc/index.ts";
import { type KeyPair, newKeyPair, spkiFingerprint } from "../../identity/index.ts";
import type {
  GuestIdentity,
  Hypervisor,
  HypervisorCapabilities,
  ReadyFacts,
  StockIdentity,
  StockVmRequest,
  VmAddress,
  VmLoss,
  VmRequest,
} from "./hypervisor.ts";
import { joinAdaptor } from "./join-adaptor.ts";
import { LiveSandboxes } from "./live-sandboxes.ts";
import { type Identity, NodeIdentity } from "./node-identity.ts";
import { NodeSession } from "./node-session.ts";
import { isPassing, patiently } from "./patience.ts";
import { PendingStops } from "./pending-stops.ts";

export interface RemoteOptions {
  /** The adaptor: `unix:///path` or `host:port` (then `tls` or `joinFile` is needed). */
  readonly address: string;
  /** The adaptor in this process: nothing is dialled then. */
  readonly adaptor?: ServiceClient<typeof PodVmDefinition> | undefined;
  readonly tls?: TlsIdentity;
  /** Instead of address and tls: what `kata-remote adaptor token` wrote. */
  readonly joinFile?: string;
  readonly nodeId: string;
  /** Kernel boot id of the node. */
  readonly bootId: string;
  /** The node's key is kept here. */
  readonly stateDir: string;
  /** Stops that were not delivered are kept here, in `pending-stops/`. */
  readonly runDir: string;
  readonly log: Logger;
  /** How long short requests keep trying while the adaptor is away, ms. */
  readonly patienceMs: number;
  /** Between two reports of what lives here, ms. */
  readonly reportMs?: number;
}

/** A stop is answered in well under a second; after this it goes on in the background, ms. */
const STOP_MS = 2000;
const REPORT_MS = 10_000;
const BASE_MS = 100;
const MAX_MS = 2000;

type StartOutcome =
  | { readonly kind: "started"; readonly address: VmAddress }
  | { readonly kind: "failed" | "broken"; readonly fault: Fault };

/** VMs made by the cloud API adaptor. Whatever the adaptor does (restart, hang, go away), nothing here is lost by it. */
export class RemoteHypervisor implements Hypervisor {
  readonly name = "remote" as const;
  readonly capabilities: HypervisorCapabilities = { blockDevices: false, hotplug: false, sharedFs: false };
  readonly #options: RemoteOptions;
  readonly #client: ServiceClient<typeof PodVmDefinition>;
  readonly #identity: NodeIdentity;
  readonly #stops: PendingStops;
  /** What SyncNode names. */
  readonly #live: LiveSandboxes;
  readonly #session: NodeSession;
  /** While a SyncNode is on its way no CreateVm is sent: it could arrive first and be stopped as unknown. */
  #syncing: Promise<void> | undefined;
  /** Of this process: certificates for it are made as guests are connected, so it is never on disk. */
  #stockKeys: KeyPair | undefined;
  readonly #over = new AbortController();

  private constructor(
    options: RemoteOptions,
    client: ServiceClient<typeof PodVmDefinition>,
    parts: { readonly stops: PendingStops; readonly live: LiveSandboxes; readonly session: NodeSession },
  ) {
    this.#options = options;
    this.#client = client;
    this.#stops = parts.stops;
    this.#live = parts.live;
    this.#session = parts.session;
    this.#identity = new NodeIdentity({
      dir: options.stateDir,
      nodeId: options.nodeId,
      sign: (csrPem, call) =>
        this.#patiently("EnrollNode", (c) => client.enrollNode({ nodeId: options.nodeId, csrPem }, c), call),
    });
  }

  /** Also starts to deliver the stops that an earlier daemon left. */
  static async open(given: RemoteOptions): Promise<RemoteHypervisor> {
    const { joinFile, patienceMs } = given;
    const { adaptor } = given;
    const joined = joinFile && (await joinAdaptor({ ...given, joinFile }, withDeadline(patienceMs)));
    const options: RemoteOptions = { ...given, ...(joined || {}) };
    const client = adaptor ?? dial(options);
    const stops = await PendingStops.open({
      dir: join(options.runDir, "pending-stops"),
      log: options.log,
      deliver: async ({ id, reason, instanceId }, call) => {
        const request = { sandboxId: id, reason, nodeId: options.nodeId, instanceId: instanceId ?? "" };
        await client.stopVm(request, withDeadline(10_000, call));
      },
    });
    const live = await LiveSandboxes.open(join(options.runDir, "remote-sandboxes"), options.log);
    const session = await NodeSession.open(options, live, stops);
    return new RemoteHypervisor(options, client, { stops, live, session });
  }

  clientIdentity(call: Call): Promise<Identity> {
    return this.#identity.get(call);
  }

  async createVm(request: VmRequest, call: Call): Promise<void> {
    // No await between the last look and the request: a SyncNode that starts later names this sandbox.
    while (this.#syncing !== undefined) await race(this.#syncing, call);
    const { sandboxId, pod, containerd, vcpus, memoryMiB, gpus, instanceType = "", image = "", volumes = [] } = request;
    this.#live.add(sandboxId, { pod, containerd });
    const { mark } = this.#session;
    await this.#patiently(
      "CreateVm",
      (c) =>
        this.#client.createVm(
          {
            sandboxId,
            nodeId: this.#options.nodeId,
            pod,
            containerdNamespace: containerd.namespace,
            containerdId: containerd.id,
            vcpus,
            memoryMib: BigInt(memoryMiB),
            gpus,
            instanceType,
            image,
            volumes: [...volumes],
            stock: request.stock && stockGuest(request.stock),
            ...mark,
          },
          c,
        ),
      call,
    );
    this.#live.acknowledge(sandboxId);
  }

  async startVm(id: SandboxId, call: Call): Promise<VmAddress> {
    let last: Fault | undefined;
    const onWaiting = (fault: Fault): void => {
      last = fault;
    };
    for (let attempt = 0; ; attempt++) {
      const outcome = await this.#followStart(id, onWaiting, call);
      if (outcome.kind === "started") {
        void this.#live.learn(id, outcome.address); // known at once; on disk it is for an adaptor that lost the record
        return outcome.address;
      }
      if (call.signal.aborted) throw outOfTime(id, call, last);
      if (outcome.kind === "failed" || !isPassing(outcome.fault)) throw outcome.fault;
      last = outcome.fault;
      this.#options.log.warn({ sandbox: id, attempt, err: last }, "lost the stream of a start, joining it again");
      await sleep(backoffMs(attempt, BASE_MS, MAX_MS), call).catch(() => {
        throw outOfTime(id, call, last);
      });
    }
  }

  async signGuest(id: SandboxId, csrPem: string, call: Call): Promise<GuestIdentity> {
    const signed = await this.#patiently(
      "SignGuest",
      (c) => this.#client.signGuest({ sandboxId: id, csrPem }, c),
      call,
    );
    const verifiedBy = signed.verifiedBy === "console" ? "console" : "address";
    void this.#live.learn(id, { guestKey: spkiFingerprint(csrPem), verifiedBy }); // as above
    return { certificatePem: signed.certificatePem, verifiedBy };
  }

  async stockIdentity(id: SandboxId, call: Call): Promise<StockIdentity> {
    this.#stockKeys ??= newKeyPair();
    const { publicKeyPem, keyPem } = this.#stockKeys;
    const known = await this.#patiently(
      "IdentifyStockGuest",
      (c) => this.#client.identifyStockGuest({ sandboxId: id, publicKeyPem }, c),
      call,
    );
    const { serverName, serverCertificatePem, caPem, clientCertificatePem } = known;
    return { serverName, serverCertificatePem, caPem, certificatePem: clientCertificatePem, keyPem };
  }

  async pullSecrets(id: SandboxId, call: Call): Promise<string | undefined> {
    // Without patience: a pod that runs does not need the adaptor.
    const { authJson } = await this.#client.pullSecrets({ sandboxId: id }, call);
    return authJson === "" ? undefined : authJson;
  }

  async reportReady(id: SandboxId, call: Call, facts?: ReadyFacts): Promise<void> {
    const request = { sandboxId: id, nodeRootfsAllowed: facts?.nodeRootfsAllowed ?? false };
    await this.#patiently("ReportReady", (c) => this.#client.reportReady(request, c), call);
    await this.#live.learn(id, { ready: true });
  }

  async stopVm(id: SandboxId, reason: string, call: Call): Promise<void> {
    const instanceId = this.#live.get(id)?.instanceId;
    const removed = this.#live.remove(id);
    const stop = { id, reason, ...(instanceId === undefined ? {} : { instanceId }) };
    await this.#stops.submit(stop, withDeadline(STOP_MS, call));
    await removed;
  }

  async watch(onLoss: (loss: VmLoss) => void, caller: Call): Promise<void> {
    const call = { ...caller, signal: AbortSignal.any([caller.signal, this.#over.signal]) };
    for (let attempt = 0; !call.signal.aborted; attempt++) {
      try {
        const events = this.#client.watchVm({ nodeId: this.#options.nodeId }, call)[Symbol.asyncIterator]();
        let next = events.next();
        next.catch(() => undefined); // awaited below; SyncNode may fail first
        // After the watch went out, so that nothing falls between the two. The adaptor may have restarted: it is told
        // again what lives here, and asked again for a certificate, whose CA may have changed.
        await this.#syncNode(onLoss, call);
        attempt = 0;
        using _reports = this.#reportNowAndThen(onLoss, call);
        for (let event = await next; event.done !== true; event = await next) {
          const sandboxId = event.value.sandboxId as SandboxId;
          if (this.#live.has(sandboxId)) onLoss({ sandboxId, reason: event.value.reason });
          next = events.next();
        }
      } catch (e) {
        if (call.signal.aborted) return;
        const refused = e instanceof Fault && e.code === "failed_precondition";
        this.#options.log[refused && attempt % 10 === 0 ? "error" : "debug"](
          { attempt, err: e },
          refused ? "the adaptor refuses this node" : "watch of the adaptor broke",
        );
      }
      await sleep(backoffMs(attempt, BASE_MS, MAX_MS), call).catch(() => undefined); // the end is seen above
    }
  }

  async sync(live: readonly SandboxId[], call: Call): Promise<void> {
    await this.#live.restore(live);
    await this.#patiently("SyncNode", (c) => this.#syncNode(() => undefined, c), call);
  }

  async check(call: Call): Promise<{ readonly version: string }> {
    const { version, provider } = await this.#client.version({}, call);
    return { version: `${version} (provider ${provider})` };
  }

  async close(): Promise<void> {
    this.#over.abort(new Fault("cancelled", "the node daemon ends"));
    await this.#stops.close();
    await this.#live.settled();
    this.#client.close();
  }

  /** "failed" is the adaptor's own word and final; "broken" is a stream that ended early. */
  async #followStart(id: SandboxId, onWaiting: (fault: Fault) => void, call: Call): Promise<StartOutcome> {
    try {
      for await (const event of this.#client.startVm({ sandboxId: id }, call)) {
        const { stage, instanceId, addresses, port, operationId } = event;
        if (stage === StartVmEvent_Stage.ADDRESS) {
          return { kind: "started", address: { instanceId: parseInstanceId(instanceId), addresses, port } };
        }
        if (stage === StartVmEvent_Stage.FAILED) {
          const context = { sandboxId: id, operationId };
          return {
            kind: "failed",
            fault: new Fault(faultCode(event.code), event.message, context, { retryable: false }),
          };
        }
        if (stage === StartVmEvent_Stage.WAITING)
          onWaiting(new Fault(faultCode(event.code), event.message, { sandboxId: id, operationId }));
        // Known from now on, so that a stop can name it to an adaptor that has lost the record.
        if (instanceId !== "") void this.#live.learn(id, { instanceId });
        this.#options.log.debug({ sandbox: id, stage, instance: instanceId }, "start of a pod VM goes on");
      }
    } catch (e) {
      return { kind: "broken", fault: Fault.from(e, { sandboxId: id }) };
    }
    const message = "the adaptor ended the stream of a start without a result";
    return { kind: "broken", fault: new Fault("unavailable", message, { sandboxId: id }) };
  }

  /** @param repeated nothing broke since the last one: our certificate is still good */
  async #syncNode(onLoss: (loss: VmLoss) => void, call: Call, repeated = false): Promise<void> {
    while (this.#syncing !== undefined) await race(this.#syncing, call);
    const over = deferred<void>();
    this.#syncing = over.promise;
    const created = this.#live.acknowledged;
    try {
      const { log } = this.#options;
      const answer = await this.#client.syncNode(this.#session.report(), withDeadline(10_000, call));
      if (!repeated) this.#identity.forget();
      await this.#session.heard(answer);
      if (answer.stale) log.warn("the adaptor has a newer report of this node: does a second daemon run here?");
      if (answer.stoppingSandboxIds.length > 0)
        log.info({ sandboxes: answer.stoppingSandboxIds }, "adaptor stops what no pod owns");
      for (const id of answer.lostSandboxIds as SandboxId[]) {
        if (created.has(id) && this.#live.has(id))
          onLoss({ sandboxId: id, reason: "the adaptor has no VM for it any more" });
      }
    } finally {
      this.#syncing = undefined;
      over.resolve();
    }
  }

  /** The adaptor takes a node that it does not hear of for silent, and learns here what an answer did not reach it with. */
  #reportNowAndThen(onLoss: (loss: VmLoss) => void, call: Call): Disposable {
    const { reportMs = REPORT_MS, log } = this.#options;
    let running = false;
    const timer = setInterval(() => {
      if (running) return;
      running = true;
      this.#syncNode(onLoss, call, true)
        .catch((err: unknown) => log.debug({ err }, "a report was not delivered, the next one follows"))
        .finally(() => {
          running = false;
        });
    }, reportMs).unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  #patiently<T>(method: string, work: (call: Call) => Promise<T>, call: Call): Promise<T> {
    const { address, patienceMs } = this.#options;
    return patiently(`${method} at ${address}`, work, withDeadline(patienceMs, call));
  }
}

function dial({ address, tls }: RemoteOptions): ServiceClient<typeof PodVmDefinition> {
  return createClient(PodVmDefinition, {
    ...{ address, ...(tls === undefined ? {} : { tls }) },
    options: {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
      // A stream that only waits must notice that its peer is gone.
      "grpc.keepalive_time_ms": 20_000,
      "grpc.keepalive_timeout_ms": 5_000,
    },
  });
}

function outOfTime(id: SandboxId, call: Call, last: Fault | undefined): Fault {
  const why = ended(call);
  if (why.code === "cancelled") return why;
  return new Fault("deadline_exceeded", "the pod VM had no address in time", { sandboxId: id }, { cause: last ?? why });
}

const CODES: readonly FaultCode[] = [
  "invalid_argument",
  "not_found",
  "already_exists",
  "failed_precondition",
  "permission_denied",
  "unauthenticated",
  "resource_exhausted",
  "unavailable",
  "aborted",
  "deadline_exceeded",
  "cancelled",
  "unimplemented",
];

function faultCode(text: string): FaultCode {
  return CODES.find((code) => code === text) ?? "internal";
}

function stockGuest(stock: StockVmRequest): StockGuest {
  return StockGuest.fromPartial({
    podNetworkJson: JSON.stringify(stock.podNetwork),
    initdataToml: stock.initdata ?? "",
    scratchSpace: stock.scratchSpace,
    operatorCertificates: stock.operatorCertificates,
    tlsMinVersion: stock.tlsMinVersion ?? "",
    tlsCipherSuites: [...stock.tlsCipherSuites],
  });
}
