import { Fault } from "../../base/fault.ts";

/** Who this guest belongs to, from Configure on. */
export class GuestState {
  #owner: { readonly sandboxId: string; readonly nodeId: string } | undefined;

  get configured(): boolean {
    return this.#owner !== undefined;
  }

  /** @throws Fault failed_precondition when the guest belongs to another sandbox or node */
  configure(sandboxId: string, nodeId: string): void {
    const owner = this.#owner;
    if (owner === undefined) this.#owner = { sandboxId, nodeId };
    else if (owner.sandboxId !== sandboxId || owner.nodeId !== nodeId) {
      throw new Fault(
        "failed_precondition",
        `this guest was configured for another sandbox before; it refuses "${sandboxId}"`,
      );
    }
  }

  /** Whether a node may speak to this guest: any before Configure, only its own afterwards. */
  accepts(nodeId: string): boolean {
    return this.#owner === undefined || this.#owner.nodeId === nodeId;
  }

  /** @throws Fault failed_precondition before Configure */
  requireConfigured(): void {
    if (this.#owner === undefined) throw new Fault("failed_precondition", "this guest is not configured yet");
  }
}
