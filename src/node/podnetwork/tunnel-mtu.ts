import { Fault } from "../../base/fault.ts";
import { familyOf, type PodNetns } from "../../podnetwork/index.ts";

/** Bytes that VXLAN adds inside of the outer packet: IP, UDP, VXLAN, inner Ethernet. Source: RFC 7348 §4.1 and §5. */
export const VXLAN_OVERHEAD = { 4: 50, 6: 70 } as const;
/**
 * Bytes that WireGuard adds: IP, UDP, its header of 16 and its tag of 16. Padding comes before these and not beyond the
 * link's MTU. Source: the WireGuard paper, §5.4.6.
 */
export const WIREGUARD_OVERHEAD = { 4: 60, 6: 80 } as const;
/** Source: RFC 8200 §5, RFC 791. */
const SMALLEST_MTU = { 4: 576, 6: 1280 } as const;

/**
 * A namespace whose interfaces fit into a tunnel: their own MTU, or what the tunnel leaves, whichever is less.
 * @param room What it leaves, bytes
 * @throws Fault failed_precondition when an address of an interface could not work with so little
 */
export function fitted(found: PodNetns, room: number, remote: string): PodNetns {
  const interfaces = found.interfaces.map((pod) => {
    const needed = Math.max(...pod.addresses.map((a) => SMALLEST_MTU[familyOf(a.address)]));
    if (room >= needed) return { ...pod, mtu: Math.min(pod.mtu, room) };
    const message = `the path to the pod VM at ${remote} leaves ${room} bytes in the tunnel, interface ${pod.name} needs ${needed}: raise the MTU of the network between node and VM`;
    throw new Fault("failed_precondition", message);
  });
  return { ...found, interfaces };
}
