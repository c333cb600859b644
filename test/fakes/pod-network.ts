import type {
  PodNetns,
  PodNetwork,
  PodNetworkPlan,
  PodNetworkTarget,
  TunnelReservation,
} from "../../src/podnetwork/index.ts";

/** What every namespace looks like. */
export const FAKE_NETNS: PodNetns = {
  interfaces: [
    { name: "eth0", mac: "02:00:00:00:00:01", mtu: 1500, addresses: [{ address: "10.0.0.2", prefixLength: 24 }] },
  ],
  routes: [],
  neighbours: [],
};

/** A pod network in memory. */
export class FakePodNetwork implements PodNetwork {
  /** In the order in which they came. */
  readonly calls: string[] = [];
  readonly taken = new Set<string>();
  /** Of the plans that it makes. */
  tunnel: PodNetworkPlan["tunnel"] = { kind: "vxlan", port: 4789, workerAddress: "192.0.2.9", vnis: [7] };
  beforeInspect: () => Promise<void> = async () => {};
  beforeDetach: () => Promise<void> = async () => {};

  async inspect(netnsPath: string): Promise<PodNetns> {
    this.calls.push(`inspect ${netnsPath}`);
    await this.beforeInspect();
    return FAKE_NETNS;
  }

  async reserve({ sandboxId }: PodNetworkTarget): Promise<TunnelReservation> {
    this.calls.push("reserve");
    this.taken.add(sandboxId);
    const written = Promise.resolve();
    return { vnis: [555_000], port: 4789, workerAddress: "192.0.2.9/24", dedicated: false, written };
  }

  async plan(_target: PodNetworkTarget, found: PodNetns, [remote]: readonly string[]): Promise<PodNetworkPlan> {
    this.calls.push(`plan to ${remote}`);
    return { version: 1, tunnel: this.tunnel, ...found };
  }

  async attach(
    { sandboxId, netnsPath }: PodNetworkTarget,
    found: PodNetns,
    [remote]: readonly string[],
  ): Promise<PodNetworkPlan> {
    this.calls.push(`attach ${netnsPath} to ${remote}`);
    this.taken.add(sandboxId);
    return { version: 1, tunnel: this.tunnel, ...found };
  }

  async complete({ netnsPath }: PodNetworkTarget, guestKey: string): Promise<void> {
    this.calls.push(`complete ${netnsPath} with ${guestKey}`);
  }

  async detach({ netnsPath }: PodNetworkTarget): Promise<void> {
    this.calls.push(`detach ${netnsPath}`);
    await this.beforeDetach();
  }

  async release(sandboxId: string): Promise<void> {
    this.calls.push("release");
    this.taken.delete(sandboxId);
  }

  async retain(sandboxIds: readonly string[]): Promise<void> {
    for (const id of this.taken) if (!sandboxIds.includes(id)) this.taken.delete(id);
  }
}
