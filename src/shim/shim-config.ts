import { type Static, Type } from "typebox";
import { ImagesConfig } from "./images/index.ts";

const seconds = 1_000;

/** What Kata lets a pod say of its VM, of `io.katacontainers.config.hypervisor.*`. Source: reference §4.3 */
export const POD_VM_ANNOTATIONS = [
  "machine_type",
  "default_memory",
  "default_vcpus",
  "image",
  "default_gpus",
  "gpu_model",
  "cc_init_data",
] as const;

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
    hostPaths: Type.Array(Type.String({ pattern: "^/" }), {
      default: [],
      description:
        "Directories of the node that pods may mount as hostPath: each container gets a copy at its start, changes on either side stay there",
    }),
    enableAnnotations: Type.Array(Type.String(), {
      default: [...POD_VM_ANNOTATIONS],
      description:
        "Regular expressions for the io.katacontainers.config.hypervisor.* annotations that pods may have, where the runtime's file has no enable_annotations",
    }),
    directVolumesDir: Type.String({
      pattern: "^/",
      default: "/run/kata-containers/shared/direct-volumes",
      description:
        "Where CSI drivers describe volumes that the pod's VM mounts (Kata's direct-assigned volumes, mountInfo.json): the device is the id of a cloud's volume",
    }),
    rootfs: Type.Union([Type.Literal("node"), Type.Literal("guest")], {
      default: "node",
      description:
        "Root file systems of pods whose runtime class says nothing: sent by the node, or pulled by the pod VM. Confidential classes pull",
    }),
    images: Type.Object(ImagesConfig.properties, { additionalProperties: false, default: {} }),
    managementDir: Type.String({
      pattern: "^(/.*)?$",
      default: "",
      description:
        "Each pod gets <dir>/<sandbox id>/shim-monitor.sock for kata-monitor and kata-runtime, which look in /run/vc/sbs; empty: none",
    }),
    guestSeccomp: Type.Boolean({
      default: true,
      description: "Pass seccomp profiles to guests that support them; a guest that doesn't runs without",
    }),
  },
  { additionalProperties: false },
);
export type ShimConfig = Static<typeof ShimConfig>;
