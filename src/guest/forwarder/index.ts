export { Forwarder, type ForwarderDeps } from "./forwarder.ts";
export type { MachinePort } from "./guest-service.ts";
export { GuestIdentity } from "./identity.ts";
export { TreeStore } from "./tree-store.ts";
