export { NetlinkNetwork } from "./netlink-network.ts";
export { NetlinkError } from "./netlink-socket.ts";
