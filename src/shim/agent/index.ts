export { Agent, type AgentDeps, type ProcessRef } from "./agent.ts";
export { withoutBacktrace } from "./agent-fault.ts";
export { guestRootfs, SANDBOX_SHM } from "./guest-paths.ts";
export { type MountCopy, type MountPlan, planMounts, type SourceFacts } from "./mount-plan.ts";
export { isSubPath, type MountOwner, sourceRole } from "./mount-source.ts";
export { OciProcess, OciResources, OciSpec, parseOci } from "./oci-spec.ts";
export { processToProto, resourcesToProto } from "./oci-to-proto.ts";
export { refusalFault, refuseUnsupported } from "./refuse-unsupported.ts";
export { type ContainerType, networkNamespacePath, specToGuest } from "./spec-to-guest.ts";
