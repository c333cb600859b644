import { type Static, Type } from "typebox";

const NetworkSettings = Type.Object({
  network: Type.Union([Type.Literal("auto"), Type.Literal("tap"), Type.Literal("user")], {
    default: "auto",
    description:
      "tap: each VM has an address on a bridge of this host, which the pod network needs. user: QEMU's own network. auto: tap where it works",
  }),
  bridge: Type.String({
    pattern: "^[A-Za-z0-9_.-]{1,15}$",
    description: "Made with the first VM, removed with the last one; nobody else on this host may use it",
  }),
  subnet: Type.String({
    minLength: 9,
    description: "IPv4 network of the bridge; the host has its first address",
  }),
  outbound: Type.Boolean({
    default: false,
    description:
      "Lets VMs open connections. user: through this host, whose loopback services they then reach too, at 10.0.2.2. tap: the host becomes their router; forwarding and NAT are yours",
  }),
});

/** How VMs of this host are connected: what an operator can set of a VmNetwork. */
export type NetworkSettings = Static<typeof NetworkSettings>;

/** Those settings for the configuration of one maker of VMs; no two on a host may have the same bridge or subnet. */
export function networkSettings(defaults: {
  readonly bridge: string;
  readonly subnet: string;
}): typeof NetworkSettings.properties {
  const { network, bridge, subnet, outbound } = NetworkSettings.properties;
  return {
    network,
    bridge: Type.String({ ...bridge, default: defaults.bridge }),
    subnet: Type.String({ ...subnet, default: defaults.subnet }),
    outbound,
  };
}
