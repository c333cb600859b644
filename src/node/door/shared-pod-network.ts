import type { Call } from "../../base/call.ts";
import type {
  PodNetns,
  PodNetwork,
  PodNetworkPlan,
  PodNetworkTarget,
  TunnelReservation,
} from "../../podnetwork/index.ts";

/** The pod network as one of its two users sees it: giving back what is not its own leaves the other's alone. */
export class SharedPodNetwork implements PodNetwork {
  readonly #network: PodNetwork;
  readonly #others: () => readonly string[];

  constructor(network: PodNetwork, others: () => readonly string[]) {
    this.#network = network;
    this.#others = others;
  }

  inspect(netnsPath: string, call: Call): Promise<PodNetns | undefined> {
    return this.#network.inspect(netnsPath, call);
  }

  reserve(
    target: PodNetworkTarget,
    count: number,
    hostInterface: string | undefined,
    call: Call,
  ): Promise<TunnelReservation> {
    return this.#network.reserve(target, count, hostInterface, call);
  }

  plan(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    return this.#network.plan(target, found, guestAddresses, call);
  }

  attach(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    return this.#network.attach(target, found, guestAddresses, call);
  }

  complete(target: PodNetworkTarget, guestKey: string, call: Call): Promise<void> {
    return this.#network.complete(target, guestKey, call);
  }

  detach(target: PodNetworkTarget, call: Call): Promise<void> {
    return this.#network.detach(target, call);
  }

  release(sandboxId: string): Promise<void> {
    return this.#network.release(sandboxId);
  }

  retain(sandboxIds: readonly string[]): Promise<void> {
    return this.#network.retain([...sandboxIds, ...this.#others()]);
  }
}
