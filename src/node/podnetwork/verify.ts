import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Finding } from "../../provider/index.ts";
import type { PodNetworkConfig } from "./config.ts";
import { NetworkCommands } from "./network-commands.ts";
import { type IpLink, TUNNEL_NAME } from "./read-netns.ts";
import { probeWireguard } from "./wireguard/index.ts";

/** What the pod network needs on this host. Tried in a namespace that is gone afterwards: nothing here is changed. */
export async function verifyPodNetwork(config: PodNetworkConfig, call: Call): Promise<readonly Finding[]> {
  const subject = "pod network";
  if (config.tunnel === "none")
    return [
      {
        subject,
        state: "warning",
        detail: "switched off: a pod's IP is not reachable from outside, and a pod reaches nothing but itself",
        remedy: 'set podNetwork.tunnel to "vxlan" or "wireguard"',
      },
    ];
  const commands = new NetworkCommands();
  const { port } = config;
  try {
    await commands.host("unshare", ["--net", "sh", "-ec", TRIAL, "sh", String(port)], call);
  } catch (e) {
    return [
      {
        subject,
        state: "error",
        detail: Fault.from(e).fullMessage,
        remedy: "run as root; apt-get install iproute2; kernel modules vxlan, veth, sch_ingress, cls_u32, act_mirred",
      },
    ];
  }
  if (config.tunnel === "wireguard") return [await verifyWireguard(commands, port, call)];
  const found: Finding[] = [{ subject, state: "ok", detail: `VXLAN on UDP port ${port}, joined to pods by tc` }];
  const devices = await commands.hostJson<IpLink>("ip", ["-json", "-d", "link", "show", "type", "vxlan"], call);
  const others = devices.filter((d) => d.linkinfo?.info_data?.port === port && !TUNNEL_NAME.test(d.ifname));
  if (others.length > 0)
    found.push({
      subject,
      state: "warning",
      detail: `UDP port ${port} is the port of ${others.map((d) => d.ifname).join(", ")} too; Calico drops what comes there from hosts that it does not know`,
      remedy: "set podNetwork.port to another one",
    });
  return found;
}

/** Whose WireGuard it is. */
async function verifyWireguard(commands: NetworkCommands, port: number, call: Call): Promise<Finding> {
  const subject = "pod network";
  try {
    const kind = await probeWireguard(commands, call);
    const whose =
      kind === "kernel"
        ? "this host's kernel has it"
        : "by wireguard-go, a process for each pod, as this host's kernel lacks it: slower";
    return { subject, state: "ok", detail: `WireGuard to UDP port ${port} of pod VMs: ${whose}` };
  } catch (e) {
    const remedy = "load the kernel's module wireguard, or apt-get install wireguard-go";
    return { subject, state: "error", detail: Fault.from(e).fullMessage, remedy };
  }
}

const TRIAL = `
ip link set lo up
ip link add name t0 type vxlan id 1 local 127.0.0.1 remote 127.0.0.2 dstport "$1" nolearning
ip link add name t1 type veth peer name t2
tc qdisc add dev t1 ingress
tc filter add dev t1 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev t0
`;
