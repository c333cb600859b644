export { GuestNetwork, type IpRunner } from "./guest-network.ts";
export { openGuestNetwork } from "./open-guest-network.ts";
export { stockPlan } from "./stock-plan.ts";
