export type {
  GuestIdentity,
  Hypervisor,
  HypervisorCapabilities,
  VmAddress,
  VmLoss,
  VmRequest,
} from "./hypervisor.ts";
