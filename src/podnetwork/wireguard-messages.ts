import { isIPv4 } from "node:net";
import { addressBytes } from "../base/address.ts";
import { type Attribute, be16, encodeAttributes, readAttributes, text, u8, u16, u32 } from "./netlink-messages.ts";
import type { WireguardKey } from "./wireguard-keys.ts";

/** The other end of a link. */
export interface WireguardPeer {
  readonly publicKey: WireguardKey;
  /** Where it is; absent: it speaks first. */
  readonly endpoint?: { readonly address: string; readonly port: number };
  /** The one address that may come from it, inside of the link. */
  readonly allowedAddress: string;
  /** Something is sent that often, s, which also keeps the way open through firewalls; absent: never. */
  readonly keepAliveSeconds?: number;
}

/** What the kernel says of a link. */
export interface WireguardDeviceState {
  /** Absent: the link has none yet. */
  readonly privateKey?: WireguardKey;
}

/** Generic netlink's own family, which tells the others' numbers. Source: include/uapi/linux/genetlink.h */
export const CTRL_FAMILY = 0x10;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR = { familyId: 1, familyName: 2 } as const;
const GENL_HEADER_BYTES = 4;

/** Source: include/uapi/linux/wireguard.h */
const FAMILY = "wireguard";
const WG_CMD = { getDevice: 0, setDevice: 1 } as const;
const VERSION = 1;
const DEVICE = { ifname: 2, privateKey: 3, flags: 5, listenPort: 6, peers: 8 } as const;
const DEVICE_REPLACE_PEERS = 1;
const PEER = { publicKey: 1, flags: 3, endpoint: 4, keepAlive: 5, allowedIps: 9 } as const;
const PEER_REPLACE_ALLOWED_IPS = 2;
const ALLOWED_IP = { family: 1, address: 2, mask: 3 } as const;
/** The family checks its messages strictly: what is nested has to say so. Source: include/uapi/linux/netlink.h */
const NESTED = 0x8000;
const AF = { inet: 2, inet6: 10 } as const;

/** Body of the question for the family's number; readFamilyId reads the answer's. */
export function familyRequest(): Buffer {
  return Buffer.concat([header(CTRL_CMD_GETFAMILY), encodeAttributes([[CTRL_ATTR.familyName, text(FAMILY)]])]);
}

export function readFamilyId(body: Buffer): number | undefined {
  return readAttributes(body.subarray(GENL_HEADER_BYTES)).get(CTRL_ATTR.familyId)?.readUInt16LE(0);
}

/** Body of the question (a dump) what a link is like; readDevice reads the answer's. */
export function getDeviceRequest(ifname: string): Buffer {
  return Buffer.concat([header(WG_CMD.getDevice), encodeAttributes([[DEVICE.ifname, text(ifname)]])]);
}

export function readDevice(body: Buffer): WireguardDeviceState {
  const key = readAttributes(body.subarray(GENL_HEADER_BYTES)).get(DEVICE.privateKey);
  return key === undefined ? {} : { privateKey: key.toString("base64") };
}

/** Body of a change. Peers that are not named go. */
export function setDeviceRequest(device: {
  readonly ifname: string;
  readonly privateKey?: WireguardKey;
  /** Absent: as it is, and a free one at first. */
  readonly listenPort?: number;
  readonly peers: readonly WireguardPeer[];
}): Buffer {
  const { ifname, privateKey, listenPort, peers } = device;
  const attributes: Attribute[] = [[DEVICE.ifname, text(ifname)]];
  if (privateKey !== undefined) attributes.push([DEVICE.privateKey, Buffer.from(privateKey, "base64")]);
  if (listenPort !== undefined) attributes.push([DEVICE.listenPort, u16(listenPort)]);
  attributes.push([DEVICE.flags, u32(DEVICE_REPLACE_PEERS)]);
  if (peers.length > 0) attributes.push([DEVICE.peers | NESTED, peers.map((peer) => [NESTED, peerAttributes(peer)])]);
  return Buffer.concat([header(WG_CMD.setDevice), encodeAttributes(attributes)]);
}

function peerAttributes({ publicKey, endpoint, allowedAddress, keepAliveSeconds }: WireguardPeer): Attribute[] {
  const attributes: Attribute[] = [
    [PEER.publicKey, Buffer.from(publicKey, "base64")],
    [PEER.flags, u32(PEER_REPLACE_ALLOWED_IPS)],
  ];
  if (endpoint !== undefined) attributes.push([PEER.endpoint, socketAddress(endpoint.address, endpoint.port)]);
  if (keepAliveSeconds !== undefined) attributes.push([PEER.keepAlive, u16(keepAliveSeconds)]);
  const four = isIPv4(allowedAddress);
  const allowed: Attribute[] = [
    [ALLOWED_IP.family, u16(four ? AF.inet : AF.inet6)],
    [ALLOWED_IP.address, addressBytes(allowedAddress)],
    [ALLOWED_IP.mask, u8(four ? 32 : 128)],
  ];
  attributes.push([PEER.allowedIps | NESTED, [[NESTED, allowed]]]);
  return attributes;
}

/** struct sockaddr_in or sockaddr_in6. */
function socketAddress(address: string, port: number): Buffer {
  const bytes = addressBytes(address);
  return isIPv4(address)
    ? Buffer.concat([u16(AF.inet), be16(port), bytes, Buffer.alloc(8)])
    : Buffer.concat([u16(AF.inet6), be16(port), u32(0), bytes, u32(0)]);
}

/** struct genlmsghdr */
function header(command: number): Buffer {
  return Buffer.from([command, VERSION, 0, 0]);
}
