import type { Call } from "../base/call.ts";
import type { PodNetns, PodNetworkPlan } from "./plan.ts";

/** A pod whose network is carried into its VM. Plain data: it is kept in the sandbox's state file. */
export interface PodNetworkTarget {
  readonly sandboxId: string;
  /** The namespace that the CNI made on the node. */
  readonly netnsPath: string;
}

/** Worker half of the pod network. The other half, in the guest, applies the plan. */
export interface PodNetwork {
  /**
   * Reads the namespace and changes nothing.
   * @returns undefined when it has no interface with an address: the pod shall have no network
   * @throws Fault failed_precondition naming what cannot be carried over, and the remedy
   */
  inspect(netnsPath: string, call: Call): Promise<PodNetns | undefined>;
  /**
   * Brings the tunnel up towards the VM. Repeatable: it converges.
   * @returns undefined when the VM's network cannot carry it (QEMU's user-mode network): the pod then has none
   * @throws Fault unavailable | failed_precondition naming the interface and the remedy
   */
  attach(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined>;
  /** Removes what attach made. A link or namespace that is gone is success. The tunnel's numbers stay taken. */
  detach(target: PodNetworkTarget, call: Call): Promise<void>;
  /** Gives the tunnel's numbers back: only when the VM is known to end, so that its packets reach no other pod. */
  release(sandboxId: string): Promise<void>;
  /** Gives back the numbers of all sandboxes but these. */
  retain(sandboxIds: readonly string[]): Promise<void>;
}
