import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { checkNetns, type PodNeighbour, PodNetns, type PodRoute } from "../../podnetwork/index.ts";

/** What `ip -json -d` prints, as far as it matters; of routes, with -N. */
export interface IpLink {
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly link_type: string;
  readonly address?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: {
      readonly id?: number;
      readonly port?: number;
      readonly local?: string;
      readonly remote?: string;
      readonly local6?: string;
      readonly remote6?: string;
      readonly learning?: boolean;
    };
  };
  readonly addr_info?: readonly {
    readonly family: string;
    readonly local: string;
    readonly prefixlen: number;
    readonly scope: string;
    readonly temporary?: boolean;
  }[];
}

export interface IpRoute {
  readonly type?: string;
  readonly dst: string;
  readonly gateway?: string;
  readonly via?: { readonly family: string; readonly host: string };
  readonly dev?: string;
  readonly protocol?: string;
  readonly scope?: string;
  readonly prefsrc?: string;
  readonly metric?: number;
  readonly flags?: readonly string[];
  readonly metrics?: readonly { readonly mtu?: number; readonly advmss?: number }[];
  readonly nexthops?: readonly unknown[];
}

export interface IpNeighbour {
  readonly dst: string;
  readonly dev: string;
  readonly lladdr?: string;
  readonly state?: readonly string[];
}

export interface NetnsOutput {
  /** ip -json -d address show */
  readonly links: readonly IpLink[];
  /** ip -N -json -d [-6] route show table main */
  readonly routes4: readonly IpRoute[];
  readonly routes6: readonly IpRoute[];
  /** ip -json -d neighbour show nud permanent */
  readonly neighbours: readonly IpNeighbour[];
}

const UNICAST = new Set(["unicast", "1", undefined]);
/** Source: include/uapi/linux/rtnetlink.h. Router advertisements' routes expire: the guest hears its own. */
const RTPROT_RA = "9";
/** Names that some versions print nevertheless. */
const PROTOCOLS: Readonly<Record<string, number>> = { kernel: 2, boot: 3, static: 4, ra: 9, dhcp: 16 };
const SCOPES: Readonly<Record<string, number>> = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 };
/** Our own tunnels in there. */
export const TUNNEL_PREFIX = "kr-vx";
export const TUNNEL_NAME = new RegExp(`^${TUNNEL_PREFIX}\\d+$`);
export const WIREGUARD_LINK = "kr-wg0";

/**
 * What of a namespace the guest shall have: every interface with an address that is not loopback or our own, its
 * addresses, the unicast routes of the main table and permanent neighbours.
 * @returns undefined when there is no such interface
 * @throws Fault failed_precondition naming what cannot be carried over
 */
export function readNetns(output: NetnsOutput, origin: string): PodNetns | undefined {
  const links = output.links.filter(({ flags, ifname }) => !flags.includes("LOOPBACK") && !isOurs(ifname));
  const interfaces = links
    .filter((l) => l.flags.includes("UP") && addresses(l).some((a) => a.scope !== "link"))
    .map((link) => {
      if (link.link_type !== "ether")
        throw new Fault(
          "failed_precondition",
          `${origin}: interface ${link.ifname} is not an Ethernet one (${link.link_type}): only those can be carried into a pod VM`,
        );
      return {
        name: link.ifname,
        mac: (link.address ?? "").toLowerCase(),
        mtu: link.mtu,
        addresses: addresses(link).map(({ local, prefixlen }) => ({ address: local, prefixLength: prefixlen })),
      };
    });
  if (interfaces.length === 0) return undefined;
  const names = new Set(interfaces.map((i) => i.name));
  const routes = [
    ...output.routes4.map((r) => toRoute(r, "0.0.0.0/0", 32, origin)),
    ...output.routes6.map((r) => toRoute(r, "::/0", 128, origin)),
  ].filter((r) => r !== undefined && names.has(r.device));
  const neighbours = output.neighbours
    .filter((n) => names.has(n.dev) && n.lladdr !== undefined)
    .map((n): PodNeighbour => ({ address: n.dst, mac: (n.lladdr ?? "").toLowerCase(), device: n.dev }));
  const netns = parseConfig(PodNetns, { interfaces, routes, neighbours }, origin);
  checkNetns(netns, origin);
  return netns;
}

function isOurs(ifname: string): boolean {
  return TUNNEL_NAME.test(ifname) || ifname === WIREGUARD_LINK;
}

function addresses(link: IpLink) {
  return (link.addr_info ?? []).filter((a) => a.family.startsWith("inet") && a.temporary !== true);
}

function toRoute(route: IpRoute, everything: string, bits: number, origin: string): PodRoute | undefined {
  if (!UNICAST.has(route.type)) return undefined; // one that refuses (blackhole) needs no device: not carried over
  if (route.protocol === RTPROT_RA || route.protocol === "ra") return undefined;
  if (route.dev === undefined || route.nexthops !== undefined)
    throw new Fault(
      "failed_precondition",
      `${origin}: the route to ${route.dst} has several next hops, which cannot be carried into a pod VM: configure the CNI with one`,
    );
  const destination =
    route.dst === "default" ? everything : route.dst.includes("/") ? route.dst : `${route.dst}/${bits}`;
  const gateway = route.gateway ?? route.via?.host;
  const { mtu, advmss } = Object.assign({}, ...(route.metrics ?? [])) as { mtu?: number; advmss?: number };
  const optional = {
    gateway,
    source: route.prefsrc,
    scope: route.scope === undefined ? undefined : (SCOPES[route.scope] ?? Number(route.scope)),
    metric: route.metric,
    onlink: route.flags?.includes("onlink") === true ? true : undefined,
    protocol: route.protocol === undefined ? undefined : (PROTOCOLS[route.protocol] ?? Number(route.protocol)),
    mtu,
    advmss,
  };
  const known = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined));
  return { destination, device: route.dev, ...known };
}
