import { addressBytes, addressText } from "../../../base/address.ts";
import { encodeAttributes, readAttributes, u32 } from "../../../podnetwork/index.ts";
import type { IpLink, IpNeighbour, IpRoute, NetnsOutput } from "../read-netns.ts";
import type { NetlinkSocket } from "./netlink-socket.ts";

/** Source: include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,if_arp}.h */
const RTM_GETLINK = 18;
const RTM_GETADDR = 22;
const RTM_GETROUTE = 26;
const RTM_GETNEIGH = 30;
const IFLA = { address: 1, name: 3, mtu: 4, linkInfo: 18 } as const;
const INFO = { kind: 1, data: 2 } as const;
const VXLAN_ID = 1;
const IFA = { address: 1, local: 2, flags: 8 } as const;
const RTA = {
  dst: 1,
  oif: 4,
  gateway: 5,
  priority: 6,
  prefSrc: 7,
  metrics: 8,
  multipath: 9,
  table: 15,
  via: 18,
} as const;
const RTAX = { mtu: 2, advmss: 8 } as const;
const NDA = { dst: 1, lladdr: 2 } as const;
const RT_TABLE_MAIN = 254;
const RTN_LOCAL = 2;
const RTM_F_CLONED = 0x200;
const RTNH_F_ONLINK = 4;
const IFA_F_TEMPORARY = 0x01;
const NUD_PERMANENT = 0x80;
const AF = { inet: 2, inet6: 10 } as const;
const LINK_TYPES: Readonly<Record<number, string>> = { 1: "ether", 772: "loopback" };
const FLAGS = { UP: 0x1, LOOPBACK: 0x8 } as const;
const SCOPES: Readonly<Record<number, string>> = { 0: "global", 200: "site", 253: "link", 254: "host" };

export interface FoundLink extends IpLink {
  readonly index: number;
}

/** The way to an address, as `ip route get` tells it. */
export interface FoundPath {
  readonly local: boolean;
  readonly source: string;
  readonly mtu: number;
}

/** What `ip` says of a namespace, without running it. @throws NetlinkError */
export function readNamespace(socket: NetlinkSocket): NetnsOutput & { readonly links: readonly FoundLink[] } {
  const links = readLinks(socket);
  const names = new Map(links.map((link) => [link.index, link.ifname]));
  return {
    links: withAddresses(links, socket.dump(RTM_GETADDR, Buffer.alloc(8))),
    routes4: readRoutes(socket, AF.inet, names),
    routes6: readRoutes(socket, AF.inet6, names),
    neighbours: readNeighbours(socket, names),
  };
}

/** What there is of IPv4, of a namespace that may have thousands of neighbours. @throws NetlinkError */
export function readIpv4(socket: NetlinkSocket): Pick<NetnsOutput, "links" | "routes4"> {
  const links = readLinks(socket);
  const header = Buffer.alloc(8);
  header[0] = AF.inet;
  return {
    links: withAddresses(links, socket.dump(RTM_GETADDR, header)),
    routes4: readRoutes(socket, AF.inet, new Map(links.map((link) => [link.index, link.ifname]))),
  };
}

function withAddresses(links: readonly FoundLink[], messages: readonly Buffer[]): readonly FoundLink[] {
  const byLink = Map.groupBy(messages.map(readAddress), (address) => address.index);
  return links.map((link) => ({ ...link, addr_info: byLink.get(link.index) ?? [] }));
}

/** Without addresses. @throws NetlinkError */
export function readLinks(socket: NetlinkSocket): readonly FoundLink[] {
  return socket.dump(RTM_GETLINK, Buffer.alloc(16)).map(readLink);
}

/** @throws NetlinkError, ENETUNREACH among others */
export function pathTo(socket: NetlinkSocket, address: string): FoundPath {
  const bytes = addressBytes(address);
  const header = Buffer.alloc(12);
  header[0] = bytes.length === 4 ? AF.inet : AF.inet6;
  header[1] = 8 * bytes.length;
  const body = socket.get(RTM_GETROUTE, Buffer.concat([header, encodeAttributes([[RTA.dst, bytes]])]));
  const found = readAttributes(body.subarray(12));
  const link = readLink(socket.get(RTM_GETLINK, linkHeader(word(found.get(RTA.oif)) ?? 0)));
  const limit = metricsOf(found.get(RTA.metrics)).mtu ?? Number.POSITIVE_INFINITY;
  const source = found.get(RTA.prefSrc);
  return {
    local: body[7] === RTN_LOCAL,
    source: source === undefined ? "" : addressText(source),
    mtu: Math.min(link.mtu, limit),
  };
}

/** struct ifinfomsg. */
export function linkHeader(index: number, flags = 0, change = 0): Buffer {
  return Buffer.concat([u32(0), u32(index), u32(flags), u32(change)]);
}

function readLink(body: Buffer): FoundLink {
  const attributes = readAttributes(body.subarray(16));
  const flags = body.readUInt32LE(8);
  const type = body.readUInt16LE(2);
  const info = readAttributes(attributes.get(IFLA.linkInfo) ?? Buffer.alloc(0));
  const kind = string(info.get(INFO.kind));
  const id = kind === "vxlan" ? word(readAttributes(info.get(INFO.data) ?? Buffer.alloc(0)).get(VXLAN_ID)) : undefined;
  return {
    index: body.readInt32LE(4),
    ifname: string(attributes.get(IFLA.name)),
    flags: Object.entries(FLAGS).flatMap(([name, bit]) => ((flags & bit) !== 0 ? [name] : [])),
    mtu: word(attributes.get(IFLA.mtu)) ?? 0,
    link_type: LINK_TYPES[type] ?? String(type),
    address: [...(attributes.get(IFLA.address) ?? [])].map((b) => b.toString(16).padStart(2, "0")).join(":"),
    linkinfo: { info_kind: kind, info_data: id === undefined ? {} : { id } },
  };
}

function readAddress(body: Buffer): NonNullable<IpLink["addr_info"]>[number] & { readonly index: number } {
  const attributes = readAttributes(body.subarray(8));
  const flags = word(attributes.get(IFA.flags)) ?? body[2] ?? 0;
  const local = attributes.get(IFA.local) ?? attributes.get(IFA.address) ?? Buffer.alloc(4);
  return {
    index: body.readUInt32LE(4),
    family: body[0] === AF.inet ? "inet" : body[0] === AF.inet6 ? "inet6" : String(body[0]),
    local: addressText(local),
    prefixlen: body[1] ?? 0,
    scope: SCOPES[body[3] ?? 0] ?? String(body[3]),
    // For IPv4 the same bit says that it is a second one of its network.
    ...(body[0] === AF.inet6 && (flags & IFA_F_TEMPORARY) !== 0 ? { temporary: true } : {}),
  };
}

function readRoutes(socket: NetlinkSocket, family: number, names: ReadonlyMap<number, string>): readonly IpRoute[] {
  const header = Buffer.alloc(12);
  header[0] = family;
  return socket.dump(RTM_GETROUTE, header).flatMap((body) => {
    const attributes = readAttributes(body.subarray(12));
    const table = word(attributes.get(RTA.table)) ?? body[4];
    const flags = body.readUInt32LE(8);
    if (table !== RT_TABLE_MAIN || (flags & RTM_F_CLONED) !== 0 || body[0] !== family) return [];
    const [dst, gateway, source, via] = [RTA.dst, RTA.gateway, RTA.prefSrc, RTA.via].map((t) => attributes.get(t));
    const metrics = metricsOf(attributes.get(RTA.metrics));
    const dev = names.get(word(attributes.get(RTA.oif)) ?? 0);
    const metric = word(attributes.get(RTA.priority));
    const route: IpRoute = {
      type: String(body[7]),
      dst: dst === undefined ? "default" : `${addressText(dst)}/${body[1]}`,
      protocol: String(body[5]),
      scope: String(body[6]),
      ...(gateway === undefined ? {} : { gateway: addressText(gateway) }),
      ...(via === undefined
        ? {}
        : { via: { family: String(via.readUInt16LE(0)), host: addressText(via.subarray(2)) } }),
      ...(dev === undefined ? {} : { dev }),
      ...(source === undefined ? {} : { prefsrc: addressText(source) }),
      ...(metric === undefined ? {} : { metric }),
      flags: (flags & RTNH_F_ONLINK) !== 0 ? ["onlink"] : [],
      metrics: [metrics],
      ...(attributes.has(RTA.multipath) ? { nexthops: [] } : {}),
    };
    return [route];
  });
}

function readNeighbours(socket: NetlinkSocket, names: ReadonlyMap<number, string>): readonly IpNeighbour[] {
  return socket.dump(RTM_GETNEIGH, Buffer.alloc(12)).flatMap((body) => {
    const attributes = readAttributes(body.subarray(12));
    const [dst, lladdr] = [attributes.get(NDA.dst), attributes.get(NDA.lladdr)];
    const dev = names.get(body.readInt32LE(4));
    const internet = body[0] === AF.inet || body[0] === AF.inet6;
    if (!internet || (body.readUInt16LE(8) & NUD_PERMANENT) === 0 || dst === undefined || dev === undefined) return [];
    const mac = [...(lladdr ?? [])].map((b) => b.toString(16).padStart(2, "0")).join(":");
    return [{ dst: addressText(dst), dev, ...(mac === "" ? {} : { lladdr: mac }) }];
  });
}

function metricsOf(bytes: Buffer | undefined): { readonly mtu?: number; readonly advmss?: number } {
  const attributes = readAttributes(bytes ?? Buffer.alloc(0));
  const [mtu, advmss] = [word(attributes.get(RTAX.mtu)), word(attributes.get(RTAX.advmss))];
  return { ...(mtu === undefined ? {} : { mtu }), ...(advmss === undefined ? {} : { advmss }) };
}

function word(bytes: Buffer | undefined): number | undefined {
  return bytes?.readUInt32LE(0);
}

function string(bytes: Buffer | undefined): string {
  return bytes?.toString("utf8").replace(/\0.*$/s, "") ?? "";
}
