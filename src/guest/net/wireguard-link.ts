import { Fault } from "../../base/fault.ts";
import {
  CTRL_FAMILY,
  familyRequest,
  readFamilyId,
  setDeviceRequest,
  type WireguardTunnel,
} from "../../podnetwork/index.ts";
import { NetlinkConnection } from "../system/netlink.ts";
import { WIREGUARD_LINK } from "./ip-batches.ts";

/**
 * Gives the link its keys, its port and its one peer, the worker.
 * @throws Fault failed_precondition when the kernel refuses it
 */
export function setWireguardLink(netns: string, tunnel: WireguardTunnel, privateKey: string): void {
  try {
    const netlink = NetlinkConnection.generic(netns);
    try {
      const family = readFamilyId(netlink.request(CTRL_FAMILY, familyRequest()));
      if (family === undefined) throw new Error("the kernel does not say its number");
      const peer = { publicKey: tunnel.workerKey, allowedAddress: tunnel.workerAddress };
      const { listenPort } = tunnel;
      netlink.request(family, setDeviceRequest({ ifname: WIREGUARD_LINK, privateKey, listenPort, peers: [peer] }));
    } finally {
      netlink.close();
    }
  } catch (cause) {
    const message = `the pod's network cannot be made in its VM: its kernel's WireGuard did not take its keys`;
    throw new Fault("failed_precondition", message, {}, { cause });
  }
}
