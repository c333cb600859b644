export { GuestNetwork, type IpRunner } from "./guest-network.ts";
export { runIp } from "./run-ip.ts";
export { stockPlan } from "./stock-plan.ts";
