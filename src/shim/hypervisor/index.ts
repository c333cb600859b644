export { networkSettings } from "../../vmm/settings/index.ts";
export type {
  GuestIdentity,
  Hypervisor,
  HypervisorCapabilities,
  ReadyFacts,
  StockIdentity,
  StockVmRequest,
  VmAddress,
  VmLoss,
  VmRequest,
} from "./hypervisor.ts";
export { openQemu, openRemote, type QemuOptions, type RemoteOptions } from "./open.ts";
