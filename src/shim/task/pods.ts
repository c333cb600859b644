import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { background, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { HeldByRelay } from "../../relay/index.ts";
import type { Hypervisor } from "../hypervisor/index.ts";
import {
  clearMountDir,
  LeftoverVms,
  PodSandbox,
  type PodSandboxDeps,
  type RunningSandboxState,
  type SandboxState,
  SandboxStateStore,
} from "../sandbox/index.ts";
import type { ShimDeps, ShimSandboxStatus } from "../shim-service.ts";
import { type NodeFiles, nodeFiles, VolumeWatch } from "../volumes/index.ts";

/** Backends whose VMs are children of the daemon and end with it. */
const CHILD_VMS: ReadonlySet<string> = new Set(["qemu"]);

/** Whose pod a new one is. */
export interface NewPod {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
  readonly bundle: string;
  readonly kind: SandboxState["kind"];
  readonly pod: ShimSandboxStatus["pod"];
  /** "" = none. */
  readonly netnsPath: string;
  /** Name of the backend; undefined: the node's usual one. */
  readonly hypervisor: string | undefined;
}

/** The pods of this daemon and what earlier ones left. */
export class Pods {
  readonly #deps: ShimDeps;
  readonly #log: Logger;
  readonly #mountDir: string;
  readonly #states: SandboxStateStore;
  readonly #leftovers: LeftoverVms;
  readonly files: NodeFiles;
  readonly #volumeWatch: VolumeWatch;
  readonly #sandboxes = new Map<SandboxId, PodSandbox>();
  /** This life of the daemon. */
  readonly #generation = randomUUID();

  constructor(deps: ShimDeps) {
    this.#deps = deps;
    this.#log = deps.log;
    this.#mountDir = join(deps.runDir, "mnt");
    this.#states = new SandboxStateStore(deps.runDir);
    const { hypervisors, podNetwork, log } = deps;
    this.files = nodeFiles(() => deps.relay.pid);
    this.#volumeWatch = new VolumeWatch({ log });
    this.#leftovers = new LeftoverVms({ hypervisors, podNetwork, states: this.#states, log });
  }

  get all(): readonly PodSandbox[] {
    return [...this.#sandboxes.values()];
  }

  /** Pods and VMs that are not known to be gone. */
  get count(): number {
    return this.#sandboxes.size + this.#leftovers.count;
  }

  get(id: SandboxId): PodSandbox | undefined {
    return this.#sandboxes.get(id);
  }

  /** A pod that is about to be booted. @throws Fault failed_precondition when its hypervisor is not configured */
  add(pod: NewPod): PodSandbox {
    const { hypervisors, podNetwork } = this.#deps;
    const name = this.checkHypervisor(pod.hypervisor);
    const hypervisor = hypervisors.get(name) as Hypervisor;
    const now = this.#deps.now ?? ((): Date => new Date());
    const { address, namespace, id, bundle, kind } = pod;
    const record: SandboxState = {
      version: 1,
      sandboxId: newSandboxId(),
      ...{ address, namespace, id, bundle },
      hypervisor: name,
      ...(pod.netnsPath === "" || podNetwork === undefined ? {} : { netnsPath: pod.netnsPath }),
      kind,
      daemonGeneration: this.#generation,
      createdAt: now().toISOString(),
    };
    const sandbox = new PodSandbox(record, pod.pod, this.#sandboxDeps(hypervisor));
    this.#sandboxes.set(sandbox.id, sandbox);
    return sandbox;
  }

  /** @param wanted undefined: the node's usual one. @returns its name. @throws Fault failed_precondition */
  checkHypervisor(wanted: string | undefined): string {
    const { config, hypervisors } = this.#deps;
    const name = wanted ?? config.hypervisor;
    if (hypervisors.has(name)) return name;
    const known = [...hypervisors.keys()].map((k) => `"${k}"`).join(", ") || "none";
    throw new Fault(
      "failed_precondition",
      `hypervisor "${name}" is not configured on this node (${known} is); configure it or choose another one`,
    );
  }

  /** Forgets a pod as soon as its VM is gone and none of its containers is left; ask again after each of these. */
  async settle(sandbox: PodSandbox): Promise<void> {
    if (sandbox.containers.length > 0) return;
    // Its containers come and go: the Sandbox API says when it ends.
    if (sandbox.record.kind === "api_sandbox" && sandbox.state === "running") return;
    await sandbox.stop("all its containers are deleted");
    if (sandbox.containers.length === 0) this.#sandboxes.delete(sandbox.id);
  }

  /**
   * Goes on with the pods of an earlier daemon whose guests the relay holds and whose first container exists (`whole`
   * says so), and stops everything else that it left.
   * @returns when the pods are there; `cleaned` when the rest is stopped, or left to be tried again
   */
  async recover(
    held: HeldByRelay,
    whole: (sandboxId: string) => boolean,
    call: Call,
  ): Promise<{ readonly cleaned: Promise<void> }> {
    await clearMountDir({ mountDir: this.#mountDir, log: this.#log });
    await this.#states.removeTemporaries();
    const { states, unreadable } = await this.#states.list();
    for (const path of unreadable)
      this.#log.error({ path }, "state file is not readable; its VM, if any, must be removed by hand");
    // A file that cannot be read may be of a VM that lives: its numbers stay taken too.
    if (unreadable.length === 0) {
      await this.#deps.podNetwork
        ?.retain(states.map((s) => s.sandboxId))
        .catch((err: unknown) => this.#log.error({ err }, "numbers of tunnels that are gone stay taken"));
    }
    const left = states.filter((state) => {
      const { sandboxId, running, hypervisor: name } = state;
      const facts = held.guests.get(sandboxId as SandboxId);
      const hypervisor = this.#deps.hypervisors.get(name);
      if (facts === undefined || running === undefined || hypervisor === undefined || !whole(sandboxId)) return true;
      const restorable: RunningSandboxState = { ...state, running };
      const sandbox = PodSandbox.restore(restorable, facts, this.#sandboxDeps(hypervisor));
      this.#sandboxes.set(sandbox.id, sandbox);
      return false;
    });
    for (const id of held.guests.keys()) {
      if (this.#sandboxes.has(id) || this.#deps.isForeign?.(id) === true) continue;
      await this.#deps.relay
        .disconnectGuest(id)
        .catch((err: unknown) => this.#log.warn({ err, sandbox: id }, "guest of no pod not disconnected"));
    }
    const releases = left.map((state) => this.#leftovers.release(state, "its node daemon ended", call));
    return { cleaned: Promise.all(releases).then(() => undefined) };
  }

  /** Says of pods whose VM went with the daemon before this one that they are lost. Call it when their tasks are there. */
  loseChildren(): void {
    for (const sandbox of this.#sandboxes.values()) {
      if (CHILD_VMS.has(sandbox.record.hypervisor)) sandbox.lose("its VM was a child of the node daemon, which ended");
    }
  }

  /** Ends the pods that cannot live without this daemon. */
  async endChildren(reason: string): Promise<void> {
    const children = this.all.filter((sandbox) => CHILD_VMS.has(sandbox.record.hypervisor));
    await Promise.all(children.map((sandbox) => sandbox.stop(reason)));
  }

  /** Stops what earlier daemons left under an id; this one's own pods are on their way already. */
  async releaseLeft(address: string, namespace: string, id: string): Promise<void> {
    const { states } = await this.#states.read(address, namespace, id);
    const left = states.filter((s) => !this.#sandboxes.has(s.sandboxId as SandboxId));
    await Promise.all(
      left.map((state) => this.#leftovers.release(state, "containerd asked to clean it up", background())),
    );
  }

  #sandboxDeps(hypervisor: PodSandboxDeps["hypervisor"]): PodSandboxDeps {
    const { relay, podNetwork, config, now = (): Date => new Date() } = this.#deps;
    const own = {
      ...{ states: this.#states, leftovers: this.#leftovers, mountDir: this.#mountDir },
      ...{ volumeWatch: this.#volumeWatch, files: this.files, log: this.#log },
    };
    return { relay, hypervisor, podNetwork, config, ...own, now };
  }

  async close(reason: string): Promise<void> {
    await Promise.all(this.all.map((sandbox) => sandbox.stop(reason)));
    this.#leftovers.close();
  }
}
