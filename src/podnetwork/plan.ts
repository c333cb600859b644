import { isIP, isIPv4 } from "node:net";
import { type Static, Type } from "typebox";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { WireguardKey } from "./wireguard-keys.ts";

const closed = { additionalProperties: false } as const;
/** What the kernel takes for an interface. Source: dev_valid_name() in net/core/dev.c. */
const DeviceName = Type.String({ pattern: "^(?!\\.{1,2}$)[^\\s/:]{1,15}$" });
const Mac = Type.String({ pattern: "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$" });
const IpAddress = Type.String({ minLength: 2, maxLength: 45 });
const Small = Type.Integer({ minimum: 0, maximum: 4_294_967_295 });

/** One interface of the pod, as the CNI made it. */
export const PodInterface = Type.Object(
  {
    name: DeviceName,
    mac: Mac,
    mtu: Type.Integer({ minimum: 68, maximum: 65_535 }),
    addresses: Type.Array(
      Type.Object({ address: IpAddress, prefixLength: Type.Integer({ minimum: 0, maximum: 128 }) }, closed),
    ),
  },
  closed,
);
export type PodInterface = Static<typeof PodInterface>;

/** A unicast route of the main table. Numbers are the kernel's (scope 0 universe, 253 link; protocol 2 kernel). */
export const PodRoute = Type.Object(
  {
    /** `address/length`; the default routes are 0.0.0.0/0 and ::/0. */
    destination: Type.String({ minLength: 4, maxLength: 49 }),
    device: DeviceName,
    /** May be of the other address family (RFC 5549). */
    gateway: Type.Optional(IpAddress),
    /** Preferred source address. */
    source: Type.Optional(IpAddress),
    scope: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    metric: Type.Optional(Small),
    /** The gateway is reached through the device even if no route says so. */
    onlink: Type.Optional(Type.Boolean()),
    protocol: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    mtu: Type.Optional(Small),
    advmss: Type.Optional(Small),
  },
  closed,
);
export type PodRoute = Static<typeof PodRoute>;

/** A permanent neighbour entry. Without them EKS's default CNI does not work: its gateway answers no ARP. */
export const PodNeighbour = Type.Object({ address: IpAddress, mac: Mac, device: DeviceName }, closed);
export type PodNeighbour = Static<typeof PodNeighbour>;

/** What a pod's network namespace on the node looks like. */
export const PodNetns = Type.Object(
  {
    interfaces: Type.Array(PodInterface, { maxItems: 64 }),
    routes: Type.Array(PodRoute, { maxItems: 4096 }),
    neighbours: Type.Array(PodNeighbour, { maxItems: 4096 }),
  },
  closed,
);
export type PodNetns = Static<typeof PodNetns>;

/** Source: RFC 7348; 0 works in Linux but not everywhere. */
export const MAX_VNI = 0xff_ff_ff;
export const Vni = Type.Integer({ minimum: 1, maximum: MAX_VNI });
export const UdpPort = Type.Integer({ minimum: 1, maximum: 65_535 });

const vxlan = {
  /** UDP, of VXLAN. */
  port: UdpPort,
  /** The worker's end of VXLAN, as the guest sees it. */
  workerAddress: IpAddress,
  /** One for each interface, in their order. */
  vnis: Type.Array(Vni, { minItems: 1, maxItems: 64 }),
};
const VxlanTunnel = Type.Object({ kind: Type.Literal("vxlan"), ...vxlan }, closed);
/** VXLAN as above, inside of a WireGuard link whose two keys are this pod's alone. */
export const WireguardTunnel = Type.Object(
  {
    kind: Type.Literal("wireguard"),
    ...vxlan,
    /** The guest's end of VXLAN, which is beside the worker's in a /31. */
    guestAddress: IpAddress,
    /** Where the guest's WireGuard listens, UDP. The worker speaks first: the guest learns its address and port by that. */
    listenPort: UdpPort,
    /** The worker's public key, base64. */
    workerKey: WireguardKey,
    /** Of the WireGuard link. */
    linkMtu: Type.Integer({ minimum: 68, maximum: 65_535 }),
  },
  closed,
);
export type WireguardTunnel = Static<typeof WireguardTunnel>;

/** What the guest makes of its pod's network: the same namespace again, with a tunnel behind each interface. */
export const PodNetworkPlan = Type.Object(
  {
    version: Type.Literal(1),
    tunnel: Type.Union([VxlanTunnel, WireguardTunnel]),
    ...PodNetns.properties,
  },
  closed,
);
export type PodNetworkPlan = Static<typeof PodNetworkPlan>;

/**
 * Checks a plan that came over the wire or from programs' output, to the last address: it is turned into input for `ip`.
 * @throws Fault invalid_argument naming the field
 */
export function parsePlan(input: unknown, origin: string): PodNetworkPlan {
  const plan = parseConfig(PodNetworkPlan, input, origin);
  checkNetns(plan, origin);
  const { tunnel } = plan;
  const { workerAddress, vnis } = tunnel;
  if (isIP(workerAddress) === 0) throw invalid(origin, "tunnel.workerAddress", workerAddress);
  if (tunnel.kind === "wireguard" && !(isIPv4(tunnel.guestAddress) && isIPv4(workerAddress)))
    throw invalid(origin, "tunnel.guestAddress (IPv4 inside of WireGuard)", tunnel.guestAddress);
  if (vnis.length !== plan.interfaces.length || new Set(vnis).size !== vnis.length)
    throw invalid(origin, "tunnel.vnis (one for each interface)", vnis.join(" "));
  return plan;
}

/** @throws Fault invalid_argument naming the field */
export function checkNetns(netns: PodNetns, origin: string): void {
  const names = netns.interfaces.map((i) => i.name);
  if (new Set(names).size !== names.length) throw invalid(origin, "interfaces (names)", names.join(" "));
  const known = (what: string, device: string): void => {
    if (!names.includes(device)) throw invalid(origin, `${what} (no such interface)`, device);
  };
  for (const { name, addresses } of netns.interfaces)
    for (const { address, prefixLength } of addresses)
      if (!isPrefix(`${address}/${prefixLength}`)) throw invalid(origin, `address of ${name}`, address);
  for (const route of netns.routes) {
    if (!isPrefix(route.destination)) throw invalid(origin, "destination of a route", route.destination);
    known(`device of the route to ${route.destination}`, route.device);
    for (const key of ["gateway", "source"] as const) {
      const value = route[key];
      if (value !== undefined && isIP(value) === 0)
        throw invalid(origin, `${key} of the route to ${route.destination}`, value);
    }
  }
  for (const { address, device } of netns.neighbours) {
    if (isIP(address) === 0) throw invalid(origin, "address of a neighbour", address);
    known(`device of neighbour ${address}`, device);
  }
}

/** 4 or 6, of an address or prefix. */
export function familyOf(address: string): 4 | 6 {
  return address.includes(":") ? 6 : 4;
}

function isPrefix(text: string): boolean {
  const [address = "", length = ""] = text.split("/");
  return isIP(address) !== 0 && /^\d+$/.test(length) && Number(length) <= (isIPv4(address) ? 32 : 128);
}

function invalid(origin: string, field: string, value: string): Fault {
  return new Fault("invalid_argument", `${origin}: ${field} is not valid: "${value.slice(0, 100)}"`, { origin });
}
