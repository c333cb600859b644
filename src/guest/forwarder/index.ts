export { Forwarder, type ForwarderDeps } from "./forwarder.ts";
export type { MachinePort } from "./guest-service.ts";
export { GuestIdentity } from "./identity.ts";
export { StockForwarder, type StockForwarderDeps } from "./stock-forwarder.ts";
export type { StockTls } from "./stock-tls.ts";
export { TreeStore } from "./tree-store.ts";
