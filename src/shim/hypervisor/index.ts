export type {
  GuestIdentity,
  Hypervisor,
  HypervisorCapabilities,
  VmAddress,
  VmLoss,
  VmRequest,
} from "./hypervisor.ts";
export { openQemu, openRemote, type QemuOptions, type RemoteOptions } from "./open.ts";
