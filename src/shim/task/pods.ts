import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { background, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { networkNamespacePath } from "../agent/index.ts";
import {
  clearMountDir,
  LeftoverVms,
  PodSandbox,
  type PreparedContainer,
  type SandboxState,
  SandboxStateStore,
} from "../sandbox/index.ts";
import type { ShimDeps } from "../shim-service.ts";

/** The pods of this daemon and what earlier ones left. */
export class Pods {
  readonly #deps: ShimDeps;
  readonly #log: Logger;
  readonly #mountDir: string;
  readonly #states: SandboxStateStore;
  readonly #leftovers: LeftoverVms;
  readonly #sandboxes = new Map<SandboxId, PodSandbox>();
  /** This life of the daemon. */
  readonly #generation = randomUUID();

  constructor(deps: ShimDeps) {
    this.#deps = deps;
    this.#log = deps.log;
    this.#mountDir = join(deps.runDir, "mnt");
    this.#states = new SandboxStateStore(deps.runDir);
    const { hypervisors, podNetwork, log } = deps;
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
  add(owner: { readonly address: string; readonly namespace: string }, prepared: PreparedContainer): PodSandbox {
    const { config, hypervisors, relay, podNetwork } = this.#deps;
    const name = prepared.overrides.hypervisor ?? config.hypervisor;
    const hypervisor = hypervisors.get(name);
    if (hypervisor === undefined) {
      const known = [...hypervisors.keys()].map((k) => `"${k}"`).join(", ") || "none";
      throw new Fault(
        "failed_precondition",
        `hypervisor "${name}" is not configured on this node (${known} is); configure it or choose another one`,
      );
    }
    const now = this.#deps.now ?? ((): Date => new Date());
    const { request, role, spec } = prepared;
    const netnsPath = podNetwork === undefined ? "" : networkNamespacePath(spec);
    const record: SandboxState = {
      version: 1,
      sandboxId: newSandboxId(),
      address: owner.address,
      namespace: owner.namespace,
      id: request.id,
      bundle: request.bundle,
      hypervisor: name,
      ...(netnsPath === "" ? {} : { netnsPath }),
      kind: role.containerType === "pod_sandbox" ? "pod_sandbox" : "single_container",
      daemonGeneration: this.#generation,
      createdAt: now().toISOString(),
    };
    const deps = {
      relay,
      hypervisor,
      podNetwork,
      config,
      states: this.#states,
      leftovers: this.#leftovers,
      mountDir: this.#mountDir,
      log: this.#log,
      now,
    };
    const sandbox = new PodSandbox(record, role.pod, deps);
    this.#sandboxes.set(sandbox.id, sandbox);
    return sandbox;
  }

  /** Forgets a pod as soon as its VM is gone and none of its containers is left; ask again after each of these. */
  async settle(sandbox: PodSandbox): Promise<void> {
    if (sandbox.containers.length > 0) return;
    await sandbox.stop("all its containers are deleted");
    if (sandbox.containers.length === 0) this.#sandboxes.delete(sandbox.id);
  }

  /** Stops what earlier daemons left. */
  async recover(call: Call): Promise<void> {
    await clearMountDir({ mountDir: this.#mountDir, log: this.#log });
    const { states, unreadable } = await this.#states.list();
    for (const path of unreadable)
      this.#log.error({ path }, "state file is not readable; its VM, if any, must be removed by hand");
    // A file that cannot be read may be of a VM that lives: its numbers stay taken too.
    if (unreadable.length === 0) await this.#deps.podNetwork?.retain(states.map((s) => s.sandboxId));
    const left = states.filter((s) => s.daemonGeneration !== this.#generation);
    await Promise.all(left.map((state) => this.#leftovers.release(state, "its node daemon ended", call)));
  }

  /** Stops what earlier daemons left under an id; this one's own pods are on their way already. */
  async releaseLeft(address: string, namespace: string, id: string): Promise<void> {
    const { states } = await this.#states.read(address, namespace, id);
    const left = states.filter((s) => s.daemonGeneration !== this.#generation);
    await Promise.all(
      left.map((state) => this.#leftovers.release(state, "containerd asked to clean it up", background())),
    );
  }

  async close(reason: string): Promise<void> {
    await Promise.all(this.all.map((sandbox) => sandbox.stop(reason)));
    this.#leftovers.close();
  }
}
