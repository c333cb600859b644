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
export type { PodNetwork, PodNetworkTarget } from "./pod-network.ts";
