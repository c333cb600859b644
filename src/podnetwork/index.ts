export {
  type Attribute,
  be16,
  encodeAttributes,
  encodeMessage,
  type NetlinkMessage,
  readAttributes,
  readMessages,
  text,
  u8,
  u16,
  u32,
} from "./netlink-messages.ts";
export {
  checkNetns,
  familyOf,
  MAX_VNI,
  type PodInterface,
  type PodNeighbour,
  PodNetns,
  PodNetworkPlan,
  type PodRoute,
  parsePlan,
  UdpPort,
  Vni,
  type WireguardTunnel,
} from "./plan.ts";
export type { PodNetwork, PodNetworkTarget, TunnelReservation } from "./pod-network.ts";
export {
  lostInStockNetwork,
  type StockNetworkFacts,
  StockPodNetwork,
  stockInterface,
  toStockNetwork,
} from "./stock-network.ts";
export { isWireguardKey, newWireguardKeys, publicKeyOf, WireguardKey, type WireguardKeys } from "./wireguard-keys.ts";
export {
  CTRL_FAMILY,
  familyRequest,
  getDeviceRequest,
  readDevice,
  readFamilyId,
  setDeviceRequest,
  type WireguardDeviceState,
  type WireguardPeer,
} from "./wireguard-messages.ts";
