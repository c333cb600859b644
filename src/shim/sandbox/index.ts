export type { Container, ContainerFacts } from "./container.ts";
export type { ContainerEvent, Emit, Exit, Stdio } from "./container-event.ts";
export { ContainerRecord } from "./container-record.ts";
export { LeftoverVms, stopVm } from "./leftover-vms.ts";
export { type AnnotationGate, HYPERVISORS, type PodOverrides, podOverrides } from "./pod-overrides.ts";
export { type PodRequest, podRequest } from "./pod-request.ts";
export { type PodRole, podRole } from "./pod-role.ts";
export { PodSandbox, type PodSandboxDeps } from "./pod-sandbox.ts";
export {
  type ContainerRequest,
  type PodExtras,
  type PreparedContainer,
  prepareContainer,
} from "./prepared-container.ts";
export { clearMountDir, type RootfsMount } from "./rootfs.ts";
export { type RunningSandboxState, type SandboxState, SandboxStateStore, taskKey } from "./sandbox-state.ts";
export { limitsToSize, withBase } from "./sizing.ts";
