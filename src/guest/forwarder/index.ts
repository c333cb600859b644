export { Forwarder, type ForwarderDeps } from "./forwarder.ts";
export { GuestIdentity } from "./identity.ts";
export type { MachinePort } from "./guest-service.ts";
export { TreeStore } from "./tree-store.ts";
