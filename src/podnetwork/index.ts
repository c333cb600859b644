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
} from "./plan.ts";
export type { PodNetwork, PodNetworkTarget, TunnelReservation } from "./pod-network.ts";
export {
  lostInStockNetwork,
  type StockNetworkFacts,
  StockPodNetwork,
  stockInterface,
  toStockNetwork,
} from "./stock-network.ts";
