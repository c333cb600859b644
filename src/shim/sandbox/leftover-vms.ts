import { background, type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parseSandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs } from "../../base/retry.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import type { Hypervisor } from "../hypervisor/index.ts";
import type { SandboxState, SandboxStateStore } from "./sandbox-state.ts";

export interface LeftoverVmsDeps {
  readonly hypervisors: ReadonlyMap<string, Hypervisor>;
  readonly podNetwork?: PodNetwork | undefined;
  readonly states: SandboxStateStore;
  readonly log: Logger;
}

const ATTEMPT_MS = 30_000;
const BASE_MS = 500;
const MAX_MS = 30_000;

/** Sees to it that VMs that nobody needs any more are stopped, however long the backend is away. Their state files stay until then. */
export class LeftoverVms {
  readonly #deps: LeftoverVmsDeps;
  readonly #timers = new Map<string, NodeJS.Timeout | undefined>();
  #closed = false;

  constructor(deps: LeftoverVmsDeps) {
    this.#deps = deps;
  }

  /** VMs that are not known to be gone yet. */
  get count(): number {
    return this.#timers.size;
  }

  /**
   * Stops a VM and forgets its state file.
   * @returns false when the backend did not take it now; it is tried again in the background
   */
  async release(state: SandboxState, reason: string, call: Call = background()): Promise<boolean> {
    if (this.#timers.has(state.sandboxId)) return false;
    this.#timers.set(state.sandboxId, undefined);
    return await this.#attempt(state, reason, 0, call);
  }

  /** Stops trying; the state files tell the next daemon. */
  close(): void {
    this.#closed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  async #attempt(state: SandboxState, reason: string, attempt: number, call: Call): Promise<boolean> {
    const { log } = this.#deps;
    const fields = { sandbox: state.sandboxId, hypervisor: state.hypervisor, container: state.id, reason };
    try {
      await stopVm(this.#deps, state, reason, withDeadline(ATTEMPT_MS, call));
      await this.#deps.podNetwork?.release(state.sandboxId);
      this.#timers.delete(state.sandboxId);
      log.info(fields, "pod VM stopped");
      return true;
    } catch (err) {
      if (this.#closed) return false;
      const delayMs = backoffMs(attempt, BASE_MS, MAX_MS);
      log.warn({ ...fields, err, attempt, delayMs }, "pod VM not stopped yet, it will be tried again");
      const again = (): void => void this.#attempt(state, reason, attempt + 1, background());
      this.#timers.set(state.sandboxId, setTimeout(again, delayMs).unref());
      return false;
    }
  }
}

/**
 * Stops the VM of a state file, with its tunnels, and removes the file.
 * @throws Fault failed_precondition when the backend is not configured any more; what stopVm throws
 */
export async function stopVm(
  deps: Pick<LeftoverVmsDeps, "hypervisors" | "states"> & {
    readonly podNetwork?: Pick<PodNetwork, "detach"> | undefined;
  },
  state: SandboxState,
  reason: string,
  call: Call,
): Promise<void> {
  const hypervisor = deps.hypervisors.get(state.hypervisor);
  if (hypervisor === undefined) {
    const known = [...deps.hypervisors.keys()].join(", ") || "none";
    throw new Fault(
      "failed_precondition",
      `VM of sandbox ${state.sandboxId} belongs to hypervisor "${state.hypervisor}", which is not configured (${known} is); configure it again`,
      { sandboxId: state.sandboxId },
    );
  }
  const { sandboxId, netnsPath } = state;
  // First: however long the backend is away, nothing of the pod stays on this host.
  const failed =
    netnsPath === undefined
      ? undefined
      : await deps.podNetwork?.detach({ sandboxId, netnsPath }, call).catch((e: unknown) => Fault.from(e));
  await hypervisor.stopVm(parseSandboxId(sandboxId), reason, call);
  if (failed instanceof Fault) throw failed;
  await deps.states.remove(state);
}
