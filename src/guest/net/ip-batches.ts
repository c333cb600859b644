import { familyOf, type PodNetworkPlan, type PodRoute } from "../../podnetwork/index.ts";

/** Input for runs of `ip -batch`: every process costs a guest under emulation tens of milliseconds. */
export interface IpBatches {
  /** In the guest's own namespace, where the outermost tunnels' sockets are. */
  readonly root: string;
  /** In the namespace between it and the pod's, which has the WireGuard link; "" without one. */
  readonly tunnel: string;
  /** In the pod's. */
  readonly pod: string;
}

/** An interface's name until it has its own: the guest's network card may be called the same. */
function temporaryName(index: number): string {
  return `kr-pod${index}`;
}

/** The tunnel's device, below the pod's interface. */
function tunnelName(vni: number | undefined): string {
  return `kr-vx${vni}`;
}

/** The WireGuard link, in a namespace of its own: VXLAN's socket is in there, where nothing comes but what it decrypted. */
export const WIREGUARD_LINK = "kr-wg0";

export interface PlanNamespaces {
  readonly pod: string;
  readonly tunnel: string;
}

/**
 * What makes a plan real. The pod's interface is a macvlan on the VXLAN device, which stays outside of the pod: its
 * containers cannot redirect it, and it has an address of its own. A frame from the pod's own address is none of its
 * echoes then: where bridge-nf-call-iptables is on, a Service that leads a pod to itself sends one (vxlan_set_mac in Linux).
 * Addresses bring no routes of their own (noprefixroute), since the plan has all of them, and need no duplicate detection:
 * the CNI gave them out. The plan has been checked: nothing in it can end a word or a line.
 */
export function ipBatches(plan: PodNetworkPlan, namespaces: PlanNamespaces): IpBatches {
  const { port, workerAddress, vnis } = plan.tunnel;
  const vxlan = plan.interfaces.flatMap(({ mac, mtu }, index) => [
    `link add name ${tunnelName(vnis[index])} mtu ${mtu}` +
      ` type vxlan id ${vnis[index]} remote ${workerAddress} dstport ${port} nolearning`,
    `link set dev ${tunnelName(vnis[index])} addrgenmode none up`,
    `link add link ${tunnelName(vnis[index])} name ${temporaryName(index)} netns ${namespaces.pod} address ${mac} mtu ${mtu}` +
      " type macvlan mode private",
  ]);
  const links = plan.interfaces.flatMap(({ name, addresses }, index) => [
    `link set dev ${temporaryName(index)} name ${name} addrgenmode none`,
    ...addresses.map(({ address, prefixLength }) => addAddress(name, address, prefixLength)),
    `link set dev ${name} up`,
  ]);
  // What a gateway is reached through comes before the routes that need it.
  const direct = plan.routes.filter((r) => r.gateway === undefined);
  const rest = plan.routes.filter((r) => r.gateway !== undefined);
  const routes = [...direct, ...rest].map(addRoute);
  const neighbours = plan.neighbours.map(
    ({ address, mac, device }) => `neighbour replace ${address} lladdr ${mac} dev ${device} nud permanent`,
  );
  const pod = lines([...links, ...routes, ...neighbours]);
  if (plan.tunnel.kind === "vxlan") return { root: lines(vxlan), tunnel: "", pod };
  const { guestAddress, linkMtu } = plan.tunnel;
  const root = `link add name ${WIREGUARD_LINK} netns ${namespaces.tunnel} mtu ${linkMtu} type wireguard`;
  const link = [
    `address add ${guestAddress}/31 dev ${WIREGUARD_LINK}`,
    `link set dev ${WIREGUARD_LINK} addrgenmode none up`,
  ];
  return { root: lines([root]), tunnel: lines([...link, ...vxlan]), pod };
}

/** Undoes them, as far as they came: the pod's interfaces go with what they are on. */
export function removalBatches(plan: PodNetworkPlan): Pick<IpBatches, "root" | "tunnel"> {
  const vxlan = plan.tunnel.vnis.map((vni) => `link delete ${tunnelName(vni)}`);
  if (plan.tunnel.kind === "vxlan") return { root: lines(vxlan), tunnel: "" };
  return { root: "", tunnel: lines([...vxlan, `link delete ${WIREGUARD_LINK}`]) };
}

function addAddress(device: string, address: string, prefixLength: number): string {
  const words = ["address", "add", `${address}/${prefixLength}`, "dev", device, "noprefixroute"];
  if (familyOf(address) === 6) words.push("nodad");
  else if (prefixLength <= 30) words.push("broadcast", "+");
  return words.join(" ");
}

function addRoute(route: PodRoute): string {
  const { destination, device, gateway, source, scope, metric, onlink, protocol, mtu, advmss } = route;
  // Not "add", which refuses IPv6's second route to fe80::/64, through another device.
  const words = ["route", "append", destination];
  if (gateway !== undefined) {
    const other = familyOf(gateway) !== familyOf(destination);
    words.push("via", ...(other ? [`inet${familyOf(gateway) === 6 ? "6" : ""}`] : []), gateway);
  }
  words.push("dev", device);
  if (source !== undefined) words.push("src", source);
  if (protocol !== undefined) words.push("proto", String(protocol));
  if (scope !== undefined && familyOf(destination) === 4) words.push("scope", String(scope));
  if (metric !== undefined) words.push("metric", String(metric));
  if (mtu !== undefined) words.push("mtu", String(mtu));
  if (advmss !== undefined) words.push("advmss", String(advmss));
  if (onlink === true) words.push("onlink");
  return words.join(" ");
}

function lines(all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join("");
}
