import { type Static, Type } from "typebox";
import { UdpPort, Vni } from "../../podnetwork/index.ts";

/** `[podNetwork]` of the node's configuration. */
export const PodNetworkConfig = Type.Object(
  {
    tunnel: Type.Union([Type.Literal("vxlan"), Type.Literal("wireguard"), Type.Literal("none")], {
      default: "vxlan",
      description:
        "How a pod's network gets into its VM. wireguard: encrypted, with our image only. none: the pod has its own localhost only",
    }),
    port: Type.Integer({
      ...UdpPort,
      default: 4789,
      description:
        "UDP, both ways between node and pod VMs; with wireguard where VMs listen. Calico and others that use 4789 need another one here",
    }),
    firstVni: Type.Integer({
      ...Vni,
      default: 555_000,
      description: "VXLAN network identifiers from here on are ours",
    }),
    bypassConntrack: Type.Boolean({
      default: true,
      description: "Rules in iptables' raw table keep connection tracking away from tunnels, where there is iptables",
    }),
  },
  { additionalProperties: false },
);
export type PodNetworkConfig = Static<typeof PodNetworkConfig>;
