import { addressBytes } from "../../../base/address.ts";
import { type Attribute, be16, encodeAttributes, familyOf, text, u8, u32 } from "../../../podnetwork/index.ts";
import { TUNNEL_NAME, TUNNEL_PREFIX } from "../read-netns.ts";
import { PREF, type TunnelEnds, type TunnelLink, VniInUse } from "../vxlan-links.ts";
import { NetlinkError, type NetlinkSocket } from "./netlink-socket.ts";
import { linkHeader, readLinks } from "./read-namespace.ts";

/** Source: include/uapi/linux/{rtnetlink,if_link,pkt_cls,pkt_sched}.h, tc_act/tc_mirred.h */
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_NEWQDISC = 36;
const RTM_NEWTFILTER = 44;
const CREATE_EXCL = 0x600;
const IFF_UP = 1;
const AF_INET6 = 10;
const IFLA = { name: 3, mtu: 4, linkInfo: 18, afSpec: 26, netNsFd: 28 } as const;
const INFO = { kind: 1, data: 2 } as const;
const VXLAN = { id: 1, group: 2, local: 4, learning: 7, port: 15, group6: 16, local6: 17 } as const;
const ADDR_GEN_MODE = 8;
const ADDR_GEN_NONE = 1;
const TCA = { kind: 1, options: 2 } as const;
const U32 = { sel: 5, act: 7 } as const;
const TC_U32_TERMINAL = 1;
const MIRRED_PARMS = 2;
const EGRESS_REDIR = 1;
const TC_ACT_STOLEN = 4;
const TC_H_INGRESS = 0xfffffff1;
const INGRESS_HANDLE = 0xffff0000;
const ETH_P_ALL = 3;

/**
 * Takes numbers for a pod whose VM has no address yet: the devices are made, without a peer. @throws VniInUse; NetlinkError
 * @param netns Descriptor of the pod's namespace
 */
export function reserveNumbers(
  host: NetlinkSocket,
  pod: NetlinkSocket,
  netns: number,
  vnis: readonly number[],
  port: number,
): void {
  const known = readLinks(pod);
  for (const [index, vni] of vnis.entries()) {
    const name = `${TUNNEL_PREFIX}${index}`;
    const device = known.find((link) => link.ifname === name);
    if (device?.linkinfo?.info_data?.id === vni) continue;
    if (device !== undefined) pod.change(RTM_DELLINK, 0, linkHeader(device.index)); // of an attempt before this
    addDevice(
      host,
      netns,
      name,
      [],
      [
        [VXLAN.id, u32(vni)],
        [VXLAN.port, be16(port)],
        [VXLAN.learning, u8(0)],
      ],
    );
  }
}

/**
 * Makes the tunnels of a pod that has none, or those that were reserved.
 * @throws VniInUse; NetlinkError when anything else is there, or missing: whoever converges goes on from what is made
 */
export function makeTunnels(
  host: NetlinkSocket,
  pod: NetlinkSocket,
  netns: number,
  links: readonly TunnelLink[],
  ends: TunnelEnds,
): void {
  const before = readLinks(pod);
  const peer = peerOf(ends);
  for (const [index, { vni, mtu }] of links.entries()) {
    const name = `${TUNNEL_PREFIX}${index}`;
    const device = before.find((link) => link.ifname === name);
    if (device === undefined) {
      const data: readonly Attribute[] = [
        [VXLAN.port, be16(ends.port)],
        [VXLAN.learning, u8(0)],
      ];
      addDevice(
        ends.inPod === true ? pod : host,
        netns,
        name,
        [[IFLA.mtu, u32(mtu)]],
        [[VXLAN.id, u32(vni)], ...peer, ...data],
      );
      continue;
    }
    // One with a peer already is somebody's work to be judged; one of another number must go.
    if (device.linkinfo?.info_data?.id !== vni || device.flags.includes("UP"))
      throw new NetlinkError(`${name} is there already`, 0);
    const info: Attribute = [
      IFLA.linkInfo,
      [
        [INFO.kind, text("vxlan")],
        [INFO.data, [[VXLAN.id, u32(vni)], ...peer]],
      ],
    ];
    pod.change(RTM_NEWLINK, 0, message(linkHeader(device.index), [info]));
  }
  const after = readLinks(pod);
  if (after.filter((link) => TUNNEL_NAME.test(link.ifname)).length > links.length)
    throw new NetlinkError("more tunnels than interfaces", 0);
  const indexOf = (name: string): number => {
    const found = after.find((link) => link.ifname === name);
    if (found === undefined) throw new NetlinkError(`no interface ${name}`, 0);
    return found.index;
  };
  for (const [index, { podInterface, mtu }] of links.entries()) {
    const [device, inner] = [indexOf(`${TUNNEL_PREFIX}${index}`), indexOf(podInterface)];
    redirect(pod, inner, device);
    redirect(pod, device, inner);
    const noAddresses: Attribute = [IFLA.afSpec, [[AF_INET6, [[ADDR_GEN_MODE, u8(ADDR_GEN_NONE)]]]]];
    // Not together with the peer: "Cannot change mtu".
    pod.change(RTM_NEWLINK, 0, message(linkHeader(device, IFF_UP, IFF_UP), [[IFLA.mtu, u32(mtu)], noAddresses]));
  }
}

function peerOf({ local, remote }: TunnelEnds): readonly Attribute[] {
  const [group, own] = familyOf(remote) === 4 ? [VXLAN.group, VXLAN.local] : [VXLAN.group6, VXLAN.local6];
  return [
    [group, addressBytes(remote)],
    [own, addressBytes(local)],
  ];
}

function addDevice(
  host: NetlinkSocket,
  netns: number,
  name: string,
  more: readonly Attribute[],
  data: readonly Attribute[],
): void {
  const info: Attribute = [
    IFLA.linkInfo,
    [
      [INFO.kind, text("vxlan")],
      [INFO.data, data],
    ],
  ];
  const attributes: readonly Attribute[] = [[IFLA.name, text(name)], [IFLA.netNsFd, u32(netns)], ...more, info];
  try {
    host.change(RTM_NEWLINK, CREATE_EXCL, message(linkHeader(0), attributes));
  } catch (e) {
    if (e instanceof NetlinkError && e.code === "EEXIST") throw new VniInUse();
    throw e;
  }
}

/** All that comes into `from` goes out of `to`; as `tc … u32 match u32 0 0 action mirred egress redirect`. */
function redirect(pod: NetlinkSocket, from: number, to: number): void {
  const qdisc = Buffer.concat([u32(0), u32(from), u32(INGRESS_HANDLE), u32(TC_H_INGRESS), u32(0)]);
  pod.change(RTM_NEWQDISC, CREATE_EXCL, message(qdisc, [[TCA.kind, text("ingress")]]));
  const protocol = ETH_P_ALL << 8; // in network order
  const filter = Buffer.concat([u32(0), u32(from), u32(0), u32(INGRESS_HANDLE), u32((PREF << 16) | protocol)]);
  // struct tc_u32_sel with one struct tc_u32_key of zeros, which every packet matches.
  const selector = Buffer.alloc(32);
  selector[0] = TC_U32_TERMINAL;
  selector[2] = 1;
  // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
  const mirred = Buffer.concat([0, 0, TC_ACT_STOLEN, 0, 0, EGRESS_REDIR, to].map(u32));
  const action: readonly Attribute[] = [
    [1, text("mirred")],
    [2, [[MIRRED_PARMS, mirred]]],
  ];
  const options: readonly Attribute[] = [
    [U32.sel, selector],
    [U32.act, [[1, action]]],
  ];
  const attributes: readonly Attribute[] = [
    [TCA.kind, text("u32")],
    [TCA.options, options],
  ];
  pod.change(RTM_NEWTFILTER, CREATE_EXCL, message(filter, attributes));
}

function message(header: Buffer, attributes: readonly Attribute[]): Buffer {
  return Buffer.concat([header, encodeAttributes(attributes)]);
}
