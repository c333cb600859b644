import { join } from "node:path";
import { background, type Call, withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { parseSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { sleep } from "../../base/retry.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import type { GuestFacts, Relay } from "../../relay/index.ts";
import { Agent, guestRootfs, specToGuest } from "../agent/index.ts";
import type { Hypervisor } from "../hypervisor/index.ts";
import { reportingPulls } from "../images/index.ts";
import { ManagementServer } from "../management/index.ts";
import { servePodLocalhost } from "../portforward/index.ts";
import type { ShimConfig } from "../shim-config.ts";
import type { ShimSandboxStatus } from "../shim-service.ts";
import { copyTree, type FollowedVolume, type NodeFiles, syncVolume, type VolumeWatch } from "../volumes/index.ts";
import { type BootedGuest, bootGuest } from "./boot-guest.ts";
import { Container, type ContainerFacts, containerFacts, removeHalfCreated } from "./container.ts";
import type { Exit } from "./container-event.ts";
import type { ContainerRecord } from "./container-record.ts";
import { type EncodedStats, encodeStats } from "./container-stats.ts";
import { SIGKILL, UNKNOWN_EXIT } from "./guest-process.ts";
import type { LeftoverVms } from "./leftover-vms.ts";
import type { PodRequest } from "./pod-request.ts";
import { sumStats } from "./pod-stats.ts";
import type { PreparedContainer } from "./prepared-container.ts";
import { rootStorage } from "./root-storage.ts";
import type { RunningSandboxState, SandboxState, SandboxStateStore } from "./sandbox-state.ts";
import { Stopwatch } from "./stopwatch.ts";

export interface PodSandboxDeps {
  readonly relay: Relay;
  readonly hypervisor: Hypervisor;
  readonly podNetwork?: PodNetwork | undefined;
  readonly config: ShimConfig;
  readonly states: SandboxStateStore;
  readonly leftovers: LeftoverVms;
  readonly volumeWatch: VolumeWatch;
  readonly files: NodeFiles;
  /** For root file systems on their way. */
  readonly mountDir: string;
  readonly log: Logger;
  readonly now: () => Date;
}

const KILL_MS = 10_000;
const DESTROY_MS = 3_000;

/** One pod and its VM: booted by its sandbox container's Create (or StartSandbox), gone after that one's end (or StopSandbox). */
export class PodSandbox {
  readonly id: SandboxId;
  readonly #deps: PodSandboxDeps;
  readonly #log: Logger;
  readonly #agent: Agent;
  readonly #containers = new Map<string, Container>();
  readonly #life = new AbortController();
  readonly #ended = deferred<Exit>();
  readonly #createdAt: Date;
  #record: SandboxState;
  #stopwatch = new Stopwatch();
  #pod: ShimSandboxStatus["pod"];
  #state: ShimSandboxStatus["state"] = "creating";
  #guest: BootedGuest | undefined;
  #instanceId = "";
  #pulls: readonly string[] = [];
  #stopping: Promise<void> | undefined;

  constructor(record: SandboxState, pod: ShimSandboxStatus["pod"], deps: PodSandboxDeps) {
    this.#record = record;
    this.id = parseSandboxId(record.sandboxId);
    this.#deps = deps;
    this.#pod = pod;
    this.#createdAt = new Date(record.createdAt);
    this.#log = deps.log.child({ sandbox: record.sandboxId, pod: `${pod.namespace}/${pod.name}` });
    this.#agent = new Agent({
      // Looked up at each call: there is no connection yet.
      caller: { call: async (...args) => await deps.relay.guest(this.id).call(...args) },
      timeoutMs: deps.config.agentTimeoutMs,
      createContainerTimeoutMs: deps.config.createContainerTimeoutMs,
    });
  }

  /** A pod of an earlier daemon, whose guest the relay holds. */
  static restore(record: RunningSandboxState, facts: GuestFacts, deps: PodSandboxDeps): PodSandbox {
    const { pod, instanceId, supportsSeccomp, packsFiles = false, timings } = record.running;
    const sandbox = new PodSandbox(record, pod, deps);
    sandbox.#guest = { facts, supportsSeccomp, packsFiles };
    sandbox.#instanceId = instanceId;
    sandbox.#stopwatch = new Stopwatch(undefined, timings);
    sandbox.#live();
    sandbox.#log.info({ instance: instanceId }, "pod goes on under this node daemon");
    return sandbox;
  }

  get record(): SandboxState {
    return this.#record;
  }

  get state(): ShimSandboxStatus["state"] {
    return this.#state;
  }

  /** Resolves when nothing runs in it any more, before its VM is given back: 0, or 255 when the VM was lost. */
  get ended(): Promise<Exit> {
    return this.#ended.promise;
  }

  get containers(): readonly Container[] {
    return [...this.#containers.values()];
  }

  /** Makes the VM and brings its agent to work. After an error everything is undone. */
  async boot(request: PodRequest, call: Call): Promise<void> {
    const { states } = this.#deps;
    const bounded: Call = { ...call, signal: AbortSignal.any([call.signal, this.#life.signal]) };
    try {
      this.#guest = await bootGuest(
        {
          ...this.#deps,
          agent: this.#agent,
          record: this.record,
          pod: this.#pod,
          stopwatch: this.#stopwatch,
          onInstance: (instanceId) => {
            this.#instanceId = instanceId;
          },
        },
        request,
        bounded,
      );
      const { supportsSeccomp, packsFiles } = this.#guest;
      const timings = [...this.#stopwatch.stages];
      this.#record = {
        ...this.#record,
        running: { pod: { ...this.#pod }, instanceId: this.#instanceId, supportsSeccomp, packsFiles, timings },
      };
      await states.write(this.#record);
    } catch (error) {
      void this.stop("it could not be started");
      throw error;
    }
    this.#live();
    this.#log.info({ instance: this.#instanceId, timings: this.#stopwatch.stages }, "pod VM is ready");
  }

  /** Creates a container in the guest: root file system, copies of its mounts, CreateContainer. */
  async createContainer(prepared: PreparedContainer, call: Call): Promise<Container> {
    const { config } = this.#deps;
    if (this.#state !== "running")
      throw new Fault("failed_precondition", `pod sandbox ${this.record.id} is ${this.#state}`);
    const { request, spec, role, overrides, plan } = prepared;
    const first = this.#containers.size === 0;
    const bounded: Call = { ...call, signal: AbortSignal.any([call.signal, this.#life.signal]) };
    const own = { ...this.#deps, sandboxId: this.id, record: this.#record, log: this.#log };
    const root = await rootStorage(own, prepared, bounded);
    if (first) this.#stopwatch.mark("rootfs");
    const volumes = await this.#copyMounts(prepared, bounded).catch(async (error: unknown) => {
      await this.removeHalfCreated(request.id);
      throw error;
    });
    const rootPath = guestRootfs(request.id);
    const guest = specToGuest(spec, {
      containerType: role.containerType,
      bundle: request.bundle,
      rootPath,
      mounts: plan.mounts,
      terminationLog: plan.copies.find((c) => c.role === "termination-log")?.destination,
      seccomp: (overrides.seccomp ?? true) && config.guestSeccomp && (this.#guest?.supportsSeccomp ?? false),
    });
    try {
      const pulls = prepared.root.kind === "guest";
      const patience = Math.max(config.createContainerTimeoutMs, pulls ? config.images.pullTimeoutMs : 0);
      const creation = this.#agent.createContainer(
        {
          containerId: request.id,
          execId: request.id,
          storages: [root, ...plan.storages],
          OCI: guest.spec,
          sandboxPidns: guest.sandboxPidns,
        },
        bounded,
        overrides.createContainerTimeoutMs ?? patience,
      );
      await (pulls ? this.#reportingPulls(creation) : creation);
      bounded.signal.throwIfAborted();
      if (this.#stopping !== undefined)
        throw new Fault("failed_precondition", `pod sandbox ${this.record.id} is ${this.#state}`);
    } catch (error) {
      await this.removeHalfCreated(request.id);
      throw error;
    }
    if (first) this.#stopwatch.mark("container");
    return this.#add(containerFacts(prepared, volumes));
  }

  /** Figures of its containers together. */
  async stats(hostCgroup: "v1" | "v2", call: Call): Promise<EncodedStats> {
    const living = this.containers.filter((c) => c.init.state === "running");
    return encodeStats(sumStats(await Promise.all(living.map((c) => this.#agent.stats(c.id, call)))), hostCgroup);
  }

  /** A container that an earlier daemon created. @param expected keys of Task calls that will come again */
  restoreContainer(facts: ContainerFacts, record: ContainerRecord, expected: ReadonlySet<string>): Container {
    const container = this.#add(facts);
    container.restore(record, expected);
    return container;
  }

  /** Undo of a creation that may have reached the guest. */
  async removeHalfCreated(containerId: string): Promise<void> {
    await removeHalfCreated({ agent: this.#agent, log: this.#log, life: this.#life.signal }, containerId);
  }

  /** Its container has been deleted. */
  forget(container: Container): void {
    this.#containers.delete(container.id);
  }

  /** The VM ended by itself or cannot be reached any more: every process ends with 255, then the rest is taken down. */
  lose(reason: string): void {
    if (this.#stopping !== undefined || this.#life.signal.aborted) return;
    this.#log.error({ instance: this.#instanceId, reason }, "pod VM lost");
    this.#deps.relay.declareLost(this.id, reason);
    this.#life.abort(
      new Fault("unavailable", `the pod VM of ${this.record.id} is lost: ${reason}`, {
        sandboxId: this.id,
        instanceId: this.#instanceId,
      }),
    );
    void this.stop(reason);
  }

  /** Ends every container, then the VM. Resolves when the VM's end is durable, or left to be tried again. Never rejects. */
  stop(reason: string): Promise<void> {
    // Not at once: ending a container in there comes back to here.
    this.#stopping ??= Promise.resolve().then(() => this.#stop(reason));
    return this.#stopping;
  }

  status(): ShimSandboxStatus {
    const { record } = this;
    return {
      sandboxId: this.id,
      containerdAddress: record.address,
      namespace: record.namespace,
      id: record.id,
      pod: this.#pod,
      hypervisor: record.hypervisor,
      state: this.#state,
      instanceId: this.#instanceId,
      createdAt: this.#createdAt,
      guestBootId: this.#guest?.facts.bootId ?? "",
      guestKernel: this.#guest?.facts.kernelRelease ?? "",
      containers: this.containers.map((c) => ({
        ...{ id: c.id, state: c.state, exitCode: c.init.exit?.status ?? 0, rootfs: c.rootfs },
      })),
      pulls: this.#pulls,
      timings: this.#stopwatch.stages,
    };
  }

  #live(): void {
    this.#state = "running";
    void this.#deps.relay.guestLost(this.id).then(({ reason }) => this.lose(reason));
    if (this.#guest?.packsFiles === true) this.#agent.packFiles();
    void this.#watchMemory();
    void this.#serveManagement();
    const { netnsPath, id: containerId } = this.record;
    if (netnsPath === undefined) return;
    const life = { agent: this.#agent, containerId, life: this.#life.signal, log: this.#log };
    void servePodLocalhost({ netns: this.#deps.files.reach(netnsPath), ...life });
  }

  #add(facts: ContainerFacts): Container {
    const { relay, now, volumeWatch, files, config } = this.#deps;
    const deps = {
      ...{ sandboxId: this.id, agent: this.#agent, relay, life: this.#life.signal, log: this.#log, now },
      ...{ namespace: this.record.namespace, volumeWatch, files, copyLimits: { maxMiB: config.maxCopyMiB } },
    };
    const container = new Container(facts, { ...deps, onEnd: (ended) => this.#onContainerEnd(ended) });
    this.#containers.set(facts.id, container);
    return container;
  }

  async #stop(reason: string): Promise<void> {
    const { relay, leftovers } = this.#deps;
    this.#state = "stopping";
    this.#log.info({ instance: this.#instanceId, reason }, "stopping pod VM");
    const alive = !this.#life.signal.aborted && this.#guest !== undefined;
    if (alive) await this.#killAll();
    for (const container of this.#containers.values()) container.force(UNKNOWN_EXIT);
    if (alive) {
      // The stock agent closes the connection before or instead of its answer.
      await this.#agent
        .destroySandbox(withDeadline(DESTROY_MS))
        .catch((err: unknown) => this.#log.debug({ err }, "sandbox not destroyed"));
    }
    this.#life.abort(
      new Fault("unavailable", `the pod VM of ${this.record.id} is stopped: ${reason}`, { sandboxId: this.id }),
    );
    this.#ended.resolve({ status: alive ? 0 : UNKNOWN_EXIT, at: this.#deps.now() });
    await relay.disconnectGuest(this.id).catch((err: unknown) => this.#log.warn({ err }, "guest not disconnected"));
    await leftovers.release(this.record, reason, background());
    this.#state = "stopped";
  }

  async #serveManagement(): Promise<void> {
    const { managementDir } = this.#deps.config;
    if (managementDir === "") return;
    const path = join(managementDir, this.record.id, "shim-monitor.sock");
    try {
      const server = await ManagementServer.open({ path, agent: this.#agent });
      const { signal } = this.#life;
      if (signal.aborted) await server.close();
      else signal.addEventListener("abort", () => void server.close(), { once: true });
    } catch (err) {
      this.#log.warn({ err }, "kata-monitor will not see this pod");
    }
  }

  /** @returns the volumes that are to be followed */
  async #copyMounts({ plan }: PreparedContainer, call: Call): Promise<FollowedVolume[]> {
    const { config, files } = this.#deps;
    const limits = { maxMiB: config.maxCopyMiB };
    const followed: FollowedVolume[] = [];
    for (const { role, ...copy } of plan.copies) {
      const tree = { ...copy, at: files.reach(copy.source) };
      if (role !== "followed") {
        await copyTree(this.#agent, tree, limits, call);
        continue;
      }
      const synced = await syncVolume(this.#agent, tree, limits, undefined, call);
      if (synced === undefined) {
        const message = `${copy.field}.source = "${copy.source}" (at ${copy.destination}) has no ..data: kubelet has not filled it, or its mount is not visible to the node daemon`;
        throw new Fault("failed_precondition", message, { field: copy.field });
      }
      followed.push({ ...copy, ...synced });
    }
    return followed;
  }

  #reportingPulls(creation: Promise<void>): Promise<void> {
    const deps = { caller: this.#deps.relay.guest(this.id), log: this.#log };
    return reportingPulls(deps, (lines) => (this.#pulls = lines), creation);
  }

  async #killAll(): Promise<void> {
    const soon = withDeadline(KILL_MS);
    const living = this.containers.filter((c) => c.init.state !== "stopped");
    await Promise.all(
      living.map(async (c) => {
        try {
          await c.init.kill(SIGKILL, soon);
          await c.init.wait(soon);
        } catch (err) {
          this.#log.warn({ err, container: c.id }, "container did not end by SIGKILL");
        }
      }),
    );
  }

  #onContainerEnd(container: Container): void {
    if (container.isSandbox) void this.stop(`its container ${container.id} ended`);
    else void container.removeFromGuest();
  }

  /** Reports containers in which the guest's kernel killed for lack of memory, as long as the guest lives. */
  async #watchMemory(): Promise<void> {
    const call: Call = { signal: this.#life.signal };
    while (!call.signal.aborted) {
      try {
        this.#containers.get(await this.#agent.oomEvent(call))?.onOom();
      } catch (err) {
        if (call.signal.aborted || (err instanceof Fault && err.code === "unimplemented")) return;
        this.#log.warn({ err }, "memory watch failed, trying again");
        await sleep(1_000, call).catch(() => undefined); // the loop's condition ends it
      }
    }
  }
}
