export { createShim } from "./create-shim.ts";
export * from "./hypervisor/index.ts";
export { POD_VM_ANNOTATIONS, ShimConfig } from "./shim-config.ts";
export type { CleanupResult, ShimDeps, ShimSandboxStatus, ShimService, StageTiming } from "./shim-service.ts";
