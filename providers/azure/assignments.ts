import type { VirtualMachine } from "@azure/arm-compute";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Logger } from "../../src/base/log.ts";
import type { Assignment } from "../../src/provider/index.ts";
import type { ArmApi } from "./arm-api.ts";
import { kindOf } from "./faults.ts";
import { type AzureTags, assignmentTags } from "./tags.ts";
import { isAtRest } from "./vm-state.ts";

const MAX_WAITING = 10_000;

/**
 * Puts on VMs whose they are. Azure changes no VM that it is still making, and takes all tags of a VM at once: so each
 * waits for the first listing that shows its VM made. Pods that end before that cost no request.
 */
export class Assignments {
  readonly #api: ArmApi;
  readonly #log: Logger;
  readonly #waiting = new Map<InstanceId, AzureTags>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  #denied: Fault | undefined;

  constructor(deps: { readonly api: ArmApi; readonly log: Logger }) {
    this.#api = deps.api;
    this.#log = deps.log;
  }

  /** @throws Fault permission_denied once Azure has said so */
  add(id: InstanceId, assignment: Assignment): void {
    if (this.#denied !== undefined) throw this.#denied;
    this.#waiting.set(id, assignmentTags(assignment));
    for (const oldest of this.#waiting.keys()) {
      if (this.#waiting.size <= MAX_WAITING) break;
      this.#waiting.delete(oldest);
    }
  }

  forget(id: InstanceId): void {
    this.#waiting.delete(id);
  }

  /** Tags those that a listing shows made. */
  onListed(vms: readonly VirtualMachine[]): void {
    if (this.#waiting.size === 0 || this.#running !== undefined) return;
    const due = vms.filter((vm) => isAtRest(vm) && this.#waiting.has(idOf(vm)));
    this.#running = this.#tagAll(due).finally(() => {
      this.#running = undefined;
    });
  }

  close(): void {
    this.#closing.abort();
    this.#waiting.clear();
  }

  async #tagAll(vms: readonly VirtualMachine[]): Promise<void> {
    const call: Call = { signal: this.#closing.signal, background: true };
    for (const vm of vms) {
      const tags = this.#waiting.get(idOf(vm));
      if (tags === undefined) continue; // it ends
      try {
        await this.#api.tagVm(idOf(vm), { ...vm.tags, ...tags }, call);
        this.#waiting.delete(idOf(vm));
      } catch (e) {
        if (this.#closing.signal.aborted) return;
        const fault = Fault.from(e);
        if (kindOf(fault) === "busy") continue; // the next listing
        this.#waiting.delete(idOf(vm));
        if (fault.code === "permission_denied") this.#denied = fault;
        this.#log.info({ instance: vm.name, err: fault }, "the VM's tags do not name its sandbox");
      }
    }
  }
}

function idOf(vm: VirtualMachine): InstanceId {
  return (vm.name?.toLowerCase() ?? "") as InstanceId;
}
