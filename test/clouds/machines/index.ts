export { macOf } from "./addresses.ts";
export { MachineHost } from "./machine-host.ts";
export { freeNetwork } from "./network.ts";
export type {
  DiskSpec,
  Machine,
  MachineEnd,
  MachineHostOptions,
  MachineSpec,
  MetadataHandler,
  MetadataReply,
  MetadataRequest,
  NicSpec,
  Platform,
  SubnetSpec,
} from "./types.ts";
