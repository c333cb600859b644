import { type Static, Type } from "typebox";

const seconds = 1_000;

/** Part `shim` of the node daemon's configuration. */
export const ShimConfig = Type.Object(
  {
    hypervisor: Type.Union([Type.Literal("remote"), Type.Literal("qemu")], {
      default: "remote",
      description: "Backend of pods that don't name one (annotation io.katacontainers.config.runtime.hypervisor_name)",
    }),
    startVmTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 600 * seconds,
      description: "From StartVM to a known address, ms",
    }),
    connectTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 180 * seconds,
      description: "From a known address to an agent that answers, ms: boot of the guest",
    }),
    guestLostAfterMs: Type.Integer({
      minimum: 1_000,
      default: 60 * seconds,
      description: "A guest without a connection for this long is lost, ms",
    }),
    agentTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 60 * seconds,
      description: "Budget of one agent call, ms",
    }),
    createContainerTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 120 * seconds,
      description: "Budget of CreateContainer, ms",
    }),
    sendTreeTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 900 * seconds,
      description: "Budget for sending one root file system, ms",
    }),
    maxCopyMiB: Type.Integer({
      minimum: 1,
      default: 64,
      description: "Largest bind mount whose content is copied into the guest, MiB",
    }),
    guestSeccomp: Type.Boolean({
      default: true,
      description: "Pass seccomp profiles to guests that support them; a guest that doesn't runs without",
    }),
  },
  { additionalProperties: false },
);
export type ShimConfig = Static<typeof ShimConfig>;
