export { NetlinkNetwork } from "./netlink-network.ts";
export { Netlink, NetlinkError, type NetlinkSocket } from "./netlink-socket.ts";
