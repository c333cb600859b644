import { join } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { type Deferred, deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId, type SandboxId } from "../../base/ids.ts";
import { race } from "../../base/retry.ts";
import {
  lostInStockNetwork,
  type StockPodNetwork,
  stockInterface,
  type TunnelReservation,
  toStockNetwork,
} from "../../podnetwork/index.ts";
import type { HeldByRelay } from "../../relay/index.ts";
import type { VmLoss, VmRequest } from "../../shim/hypervisor/index.ts";
import { decodeInitdata } from "../../userdata/index.ts";
import type { StockDeps } from "./stock-deps.ts";
import { StockPod } from "./stock-pod.ts";
import type { StockState } from "./stock-state.ts";
import { together } from "./together.ts";
import type { StockVmWish } from "./vm-annotations.ts";

/** sun_path, without its zero. Source: unix(7). */
const MAX_SOCKET_BYTES = 107;
/** A VM that was reserved and never started is given up after this, ms: its shim died in between. */
const UNSTARTED_MS = 15 * 60_000;
const LOOK_MS = 10_000;

/** The pods of stock shims. Every method may be repeated, and comes from any of the shim's processes. */
export class StockPods {
  readonly #deps: StockDeps;
  readonly #pods = new Map<string, StockPod>();
  readonly #creating = new Map<string, Promise<StockPod>>();
  readonly #ticker: NodeJS.Timeout;
  readonly #waiters = new Set<Deferred<void>>();
  #tunnels = 0;

  constructor(deps: StockDeps) {
    this.#deps = deps;
    this.#ticker = setInterval(() => void this.#stopOrphans(), deps.lookMs ?? LOOK_MS);
    this.#ticker.unref();
  }

  get count(): number {
    return this.#pods.size;
  }

  get sandboxIds(): readonly SandboxId[] {
    return [...this.#pods.values()].filter((pod) => !pod.ending).map((pod) => pod.sandboxId);
  }

  /** Takes up what an earlier daemon left, without waiting for any guest; `held` says whose connections the relay has. */
  async recover(held: HeldByRelay): Promise<void> {
    for (const state of await this.#deps.states.list()) {
      const pod = this.#pod(state);
      this.#pods.set(state.id, pod);
      void pod.resume(held.guests.get(pod.sandboxId));
    }
  }

  /** The pod's agent socket; the same one again for an id that is there. @throws Fault naming what is wrong */
  async create(wish: StockVmWish, call: Call): Promise<string> {
    const known = this.#pods.get(wish.id);
    // Before anything else: a shim's clean-up asks for it again when the pod's network is gone.
    if (known !== undefined && !known.ending) return known.socketPath;
    const created = this.#creating.get(wish.id) ?? this.#create(wish, known);
    this.#creating.set(wish.id, created);
    created.finally(() => this.#creating.delete(wish.id)).catch(() => undefined); // whoever asked is told below
    return (await race(created, call)).socketPath;
  }

  async start(id: string, call: Call): Promise<void> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw new Fault("not_found", `sandbox ${id} does not exist: CreateVM comes first`);
    await pod.start(call);
    this.#tell();
  }

  /** Resolves when it is done; an id that is unknown is. */
  async stop(id: string, reason: string): Promise<void> {
    await this.#creating.get(id)?.catch(() => undefined); // a create that fails leaves nothing to stop
    const pod = this.#pods.get(id);
    if (pod === undefined) return;
    await pod.stop(reason);
  }

  /** The instance of a pod; undefined when it has none yet. */
  instanceOf(pod: { readonly namespace: string; readonly name: string }): string | undefined {
    const found = [...this.#pods.values()].filter(
      (p) => p.pod.name === pod.name && p.pod.namespace === pod.namespace && !p.ending,
    );
    return found.map((p) => p.instanceId).find((id) => id !== undefined);
  }

  /** Resolves when another pod has started. @throws Fault when the call ends */
  async changed(call: Call): Promise<void> {
    const waiter = deferred<void>();
    this.#waiters.add(waiter);
    try {
      await race(waiter.promise, call);
    } finally {
      this.#waiters.delete(waiter);
    }
  }

  lose(loss: VmLoss): void {
    for (const pod of this.#pods.values()) if (pod.sandboxId === loss.sandboxId) pod.lose(loss.reason);
  }

  /** Pods live on: whoever comes next takes them up. */
  close(): void {
    clearInterval(this.#ticker);
  }

  async #create(wish: StockVmWish, before: StockPod | undefined): Promise<StockPod> {
    await before?.stop("CreateVM came again");
    const { config, hypervisor, states, podNetwork, log } = this.#deps;
    const call = withDeadline(config.connectTimeoutMs);
    const socketPath = join(config.podsDir, wish.id, "agent.ttrpc");
    if (Buffer.byteLength(socketPath) > MAX_SOCKET_BYTES)
      throw new Fault(
        "invalid_argument",
        `socket path ${socketPath} is longer than ${MAX_SOCKET_BYTES} bytes: choose a shorter stock.podsDir`,
      );
    const sandboxId = newSandboxId();
    const network = await this.#network(sandboxId, wish, call);
    const state: StockState = {
      version: 1,
      ...{ id: wish.id, sandboxId, hypervisor: hypervisor.name, guest: config.guest, pod: wish.pod, socketPath },
      ...(wish.netnsPath === "" ? {} : { netnsPath: wish.netnsPath }),
      ...(network === undefined ? {} : { vnis: [...network.reserved.vnis] }),
      dedicated: network?.reserved.dedicated ?? false,
      createdAt: new Date().toISOString(),
    };
    const pod = this.#pod(state);
    try {
      // None of it costs anything in the cloud yet: only StartVM needs all of it to be there.
      await together(
        call,
        () => states.write(state),
        async () => network?.reserved.written,
        (c) => hypervisor.createVm(this.#request(sandboxId, wish, network?.config), c),
      );
    } catch (e) {
      void pod.stop("it could not be reserved");
      throw e;
    }
    this.#pods.set(wish.id, pod);
    log.info(
      {
        sandbox: sandboxId,
        shimSandbox: wish.id,
        pod: `${wish.pod.namespace}/${wish.pod.name}`,
        netns: wish.netnsPath,
      },
      "a stock shim reserved a VM",
    );
    if (podNetwork === undefined) log.debug({ sandbox: sandboxId }, "pods have no network here");
    return pod;
  }

  /** What a stock guest is told of its network; undefined for ours, which is told over its connection. */
  async #network(
    sandboxId: SandboxId,
    wish: StockVmWish,
    call: Call,
  ): Promise<{ readonly reserved: TunnelReservation; readonly config: StockPodNetwork } | undefined> {
    const { config, podNetwork, log } = this.#deps;
    if (podNetwork === undefined && config.guest === "stock")
      throw new Fault("failed_precondition", 'the stock image needs a pod network: podNetwork.tunnel is "none"');
    if (podNetwork === undefined || wish.netnsPath === "") {
      if (config.guest === "reference") return undefined;
      throw new Fault(
        "invalid_argument",
        `CreateVM of ${wish.id} names no network namespace, which the stock image needs`,
      );
    }
    const netns = await podNetwork.inspect(wish.netnsPath, call); // what cannot be carried over costs no VM
    if (config.guest === "reference") return undefined;
    if (netns === undefined)
      throw new Fault(
        "failed_precondition",
        `${wish.netnsPath} has no interface with an address, which the stock image needs`,
      );
    stockInterface(netns);
    const lost = lostInStockNetwork(netns);
    if (lost.length > 0)
      log.warn({ sandbox: sandboxId, lost }, "the stock image does not get all of the pod's network");
    const reserved = await podNetwork.reserve({ sandboxId, netnsPath: wish.netnsPath }, 1, config.hostInterface, call);
    const facts = {
      ...{ workerAddress: reserved.workerAddress, port: reserved.port, dedicated: reserved.dedicated },
      ...{ vni: reserved.vnis[0] ?? 0, index: this.#tunnels++ },
      ...{ externalViaVm: config.externalNetworkViaVm, podSubnets: config.podSubnets },
    };
    return { reserved, config: toStockNetwork(netns, facts) };
  }

  #request(sandboxId: SandboxId, wish: StockVmWish, podNetwork: StockPodNetwork | undefined): VmRequest {
    const { config, tls } = this.#deps;
    const { id, pod, vcpus, memoryMiB, gpus, instanceType, image = config.image } = wish;
    const initdata = wish.initdata ?? (config.initdata === undefined ? undefined : decodeInitdata(config.initdata));
    const common = {
      ...{ sandboxId, pod: { ...pod, uid: "" }, containerd: { namespace: "", id }, vcpus, memoryMiB, gpus },
      ...(instanceType === undefined ? {} : { instanceType }),
      ...(image === undefined ? {} : { image }),
    };
    if (podNetwork === undefined) return common;
    const stock = {
      podNetwork,
      ...(initdata === undefined ? {} : { initdata }),
      scratchSpace: config.scratchSpace,
      operatorCertificates: tls.operator !== undefined,
      ...(tls.minVersionName === undefined ? {} : { tlsMinVersion: tls.minVersionName }),
      tlsCipherSuites: tls.cipherSuites,
    };
    return { ...common, stock };
  }

  /** A shim that was killed sends no StopVM: what nobody is connected to is stopped after a while. */
  async #stopOrphans(): Promise<void> {
    const { relay, config, log } = this.#deps;
    try {
      const idle = new Map((await relay.agentSocketUse()).map((use) => [use.sandboxId, use.idleMs]));
      for (const pod of this.#pods.values()) {
        const orphaned = pod.running
          ? (idle.get(pod.sandboxId) ?? 0) > config.orphanMs
          : pod.ageMs > UNSTARTED_MS + config.startVmTimeoutMs + config.connectTimeoutMs;
        if (!orphaned || pod.ending) continue;
        log.warn({ sandbox: pod.sandboxId, shimSandbox: pod.id }, "no shim is connected any more: the pod is stopped");
        void this.stop(pod.id, "no shim is connected any more");
      }
    } catch (err) {
      log.error({ err }, "agent sockets cannot be looked at");
    }
  }

  #pod(state: StockState): StockPod {
    return new StockPod(this.#deps, state, (pod) => {
      if (this.#pods.get(pod.id) === pod) this.#pods.delete(pod.id);
    });
  }

  #tell(): void {
    for (const waiter of this.#waiters) waiter.resolve();
  }
}
