export { StockConfig } from "./config.ts";
export { SharedPodNetwork } from "./shared-pod-network.ts";
export { StockDoor } from "./stock-door.ts";
