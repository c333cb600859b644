import type { Call } from "../base/call.ts";
import type { PodNetns, PodNetworkPlan } from "./plan.ts";

/** A pod whose network is carried into its VM. Plain data: it is kept in the sandbox's state file. */
export interface PodNetworkTarget {
  readonly sandboxId: string;
  /** The namespace that the CNI made on the node. */
  readonly netnsPath: string;
  /** The guest was told these numbers already: attach uses them or fails. */
  readonly vnis?: readonly number[];
}

/** A tunnel whose guest is told of it before it has an address. */
export interface TunnelReservation {
  readonly vnis: readonly number[];
  /** UDP, on both ends. */
  readonly port: number;
  /** The worker's end, `address/length`. */
  readonly workerAddress: string;
  /** That end is on another interface than the default route's. */
  readonly dedicated: boolean;
  /** Resolves when the numbers are on disk: no VM may be made before, or another pod could get them after a crash. */
  readonly written: Promise<void>;
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
   * Takes a tunnel's numbers before there is a VM, for a guest that learns them from its user-data. Repeatable.
   * @param hostInterface The worker's end is on it; absent: on the default route's
   * @throws Fault failed_precondition when this host has no address for it
   */
  reserve(
    target: PodNetworkTarget,
    count: number,
    hostInterface: string | undefined,
    call: Call,
  ): Promise<TunnelReservation>;
  /**
   * What attach will give for numbers that are reserved, before it does anything: the guest can be told while the tunnel is
   * made. @returns and @throws as attach does
   */
  plan(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined>;
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
  /**
   * The guest has made its end and answered with its key: what it sends is taken from here on. Repeatable; a plan without
   * keys needs no such step.
   * @throws Fault failed_precondition when there is no such tunnel, or the answer is no key
   */
  complete(target: PodNetworkTarget, guestKey: string, call: Call): Promise<void>;
  /** Removes what attach made. A link or namespace that is gone is success. The tunnel's numbers stay taken. */
  detach(target: PodNetworkTarget, call: Call): Promise<void>;
  /** Gives the tunnel's numbers back: only when the VM is known to end, so that its packets reach no other pod. */
  release(sandboxId: string): Promise<void>;
  /** Gives back the numbers of all sandboxes but these. */
  retain(sandboxIds: readonly string[]): Promise<void>;
}
