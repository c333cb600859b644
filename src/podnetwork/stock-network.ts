import { isIPv4 } from "node:net";
import { type Static, Type } from "typebox";
import { Fault } from "../base/fault.ts";
import type { PodNetns, PodRoute } from "./plan.ts";

/**
 * What the stock forwarder makes of its pod's network: `pod-network` in apf.json.
 * Source: peer-pods wire contract §3.5 (keys), §3.11 (what goes in), §3.12 (what is done with it).
 */
export const StockPodNetwork = Type.Object(
  {
    podip: Type.String(),
    "pod-hw-addr": Type.String(),
    interface: Type.String(),
    "worker-node-ip": Type.String(),
    "tunnel-type": Type.Literal("vxlan"),
    routes: Type.Array(
      Type.Object({
        dst: Type.String(),
        gw: Type.String(),
        dev: Type.Optional(Type.String()),
        protocol: Type.Optional(Type.String()),
        scope: Type.Optional(Type.String()),
      }),
    ),
    neighbors: Type.Array(
      Type.Object({
        ip: Type.String(),
        "hw-addr": Type.String(),
        dev: Type.String(),
        state: Type.Literal("permanent"),
      }),
    ),
    mtu: Type.Integer(),
    index: Type.Integer(),
    "vxlan-port": Type.Integer(),
    "vxlan-id": Type.Integer(),
    dedicated: Type.Boolean(),
    "external-net-via-pod-vm": Type.Boolean(),
  },
  { additionalProperties: false },
);
export type StockPodNetwork = Static<typeof StockPodNetwork>;

export interface StockNetworkFacts {
  /** The worker's end of the tunnel, `address/length`. */
  readonly workerAddress: string;
  readonly port: number;
  readonly vni: number;
  /** Counts the tunnels of this node. */
  readonly index: number;
  /** The tunnel uses the VM's second interface. */
  readonly dedicated: boolean;
  readonly externalViaVm: boolean;
  /** CIDRs that stay on the tunnel when the VM's own interface is the default route. */
  readonly podSubnets: readonly string[];
}

/** Numbers of rtnetlink to the words that the forwarder takes. Other protocols' routes are not sent, as from its own worker. */
const PROTOCOLS: Readonly<Record<number, string>> = { 2: "kernel", 3: "boot", 4: "static", 16: "dhcp" };
const SCOPES: Readonly<Record<number, string>> = { 200: "site", 253: "link", 254: "host", 255: "nowhere" };
const BOOT = 3;
const EVERYTHING = "0.0.0.0/0";

/**
 * The one interface that the stock forwarder can make: the default route's.
 * @throws Fault failed_precondition when the namespace is not one that it can make
 */
export function stockInterface(netns: PodNetns): PodNetns["interfaces"][number] {
  const device = netns.routes.find((r) => r.destination === EVERYTHING)?.device;
  const found = netns.interfaces.find((i) => i.name === device);
  const addresses = found?.addresses.filter((a) => isIPv4(a.address)) ?? [];
  if (found === undefined)
    throw unfit(
      "the pod's network namespace has no default IPv4 route, by which the stock forwarder finds its interface",
    );
  if (addresses.length !== 1)
    throw unfit(
      `interface ${found.name} has ${addresses.length} IPv4 addresses, the stock forwarder takes exactly one`,
    );
  return found;
}

/** What is there and cannot be told to a stock forwarder, in words. */
export function lostInStockNetwork(netns: PodNetns): readonly string[] {
  const pod = stockInterface(netns).name;
  const v6 = netns.interfaces
    .flatMap((i) => i.addresses)
    .filter((a) => !isIPv4(a.address) && !/^fe80:/i.test(a.address));
  const others = netns.interfaces.filter((i) => i.name !== pod).map((i) => i.name);
  const marked = netns.routes.filter(
    (r) => isV4(r) && (r.metric !== undefined || r.onlink === true || r.source !== undefined),
  );
  return [
    ...(v6.length > 0 ? [`IPv6 (${v6.map((a) => a.address).join(", ")})`] : []),
    ...(others.length > 0 ? [`interfaces ${others.join(", ")}`] : []),
    ...(marked.some((r) => r.protocol !== 2) ? ["metric, source or onlink of routes"] : []),
  ];
}

/** @throws Fault failed_precondition as stockInterface does */
export function toStockNetwork(netns: PodNetns, facts: StockNetworkFacts): StockPodNetwork {
  const pod = stockInterface(netns);
  const address = pod.addresses.find((a) => isIPv4(a.address));
  const routes = netns.routes
    .filter((r) => r.device === pod.name && isV4(r) && PROTOCOLS[r.protocol ?? BOOT] !== undefined)
    .sort(byDestination)
    .map((r) => ({
      dst: r.destination,
      gw: r.gateway ?? "",
      dev: r.device,
      ...optional("protocol", PROTOCOLS[r.protocol ?? BOOT]),
      ...optional("scope", SCOPES[r.scope ?? 0]),
    }));
  const gateway = netns.routes.find((r) => r.destination === EVERYTHING)?.gateway ?? "";
  const kept = facts.podSubnets.map((dst) => ({ dst, gw: gateway, dev: pod.name }));
  return {
    podip: `${address?.address}/${address?.prefixLength}`,
    "pod-hw-addr": pod.mac,
    interface: pod.name,
    "worker-node-ip": facts.workerAddress,
    "tunnel-type": "vxlan",
    routes: [...routes, ...kept],
    neighbors: netns.neighbours
      .filter((n) => n.device === pod.name && isIPv4(n.address))
      .map((n) => ({ ip: n.address, "hw-addr": n.mac, dev: n.device, state: "permanent" as const })),
    mtu: pod.mtu,
    index: facts.index,
    "vxlan-port": facts.port,
    "vxlan-id": facts.vni,
    dedicated: facts.dedicated,
    "external-net-via-pod-vm": facts.externalViaVm,
  };
}

function optional<K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } {
  return (value === undefined ? {} : { [key]: value }) as { readonly [P in K]?: string };
}

function isV4(route: PodRoute): boolean {
  return isIPv4(route.destination.split("/")[0] ?? "") && (route.gateway === undefined || isIPv4(route.gateway));
}

/** By address, then length, then metric: those without a gateway are applied first by the forwarder itself. */
function byDestination(a: PodRoute, b: PodRoute): number {
  const number = (r: PodRoute): number =>
    (r.destination.split("/")[0] ?? "").split(".").reduce((n, part) => n * 256 + Number(part), 0);
  const length = (r: PodRoute): number => Number(r.destination.split("/")[1]);
  return number(a) - number(b) || length(a) - length(b) || (a.metric ?? 0) - (b.metric ?? 0);
}

function unfit(why: string): Fault {
  const remedy = "use the reference image (stock.guest), which carries any namespace, or configure the CNI otherwise";
  return new Fault("failed_precondition", `${why}: ${remedy}`);
}
