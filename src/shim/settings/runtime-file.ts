import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { HYPERVISORS, type PodOverrides } from "../sandbox/index.ts";
import { annotationGate } from "./annotation-gate.ts";

const HYPERVISOR = Type.Union(HYPERVISORS.map((name) => Type.Literal(name)));

/** A runtime's file, named by ConfigPath in containerd's configuration: TOML, defaults for all its pods. */
export const RuntimeFile = Type.Object(
  {
    hypervisor: Type.Optional(HYPERVISOR),
    machine_type: Type.Optional(Type.String({ minLength: 1 })),
    image: Type.Optional(Type.String({ minLength: 1 })),
    default_vcpus: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1_024 })),
    default_memory: Type.Optional(Type.Integer({ minimum: 1, description: "MiB" })),
    enable_annotations: Type.Optional(Type.Array(Type.String(), { description: "Regular expressions" })),
    experimental_force_guest_pull: Type.Optional(Type.Boolean({ description: "Whether pod VMs pull their images" })),
    confidential_guest: Type.Optional(Type.Boolean({ description: "Pods pull their images unless that is allowed" })),
    allow_node_rootfs: Type.Optional(
      Type.Boolean({ description: "Confidential pods may have the node's root file systems when they ask for them" }),
    ),
    create_container_timeout: Type.Optional(Type.Integer({ minimum: 1, description: "seconds" })),
    remote_hypervisor_timeout: Type.Optional(Type.Integer({ minimum: 1, description: "seconds" })),
    disable_guest_seccomp: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
type RuntimeFile = Static<typeof RuntimeFile>;

/** @throws Fault invalid_argument naming the file and the key in it */
export function readRuntimeFile(table: unknown, origin: string): PodOverrides {
  const file: RuntimeFile = parseConfig(RuntimeFile, table, origin);
  const set = <K extends keyof RuntimeFile>(key: K, of: (value: NonNullable<RuntimeFile[K]>) => PodOverrides) => {
    const value = file[key];
    return value === undefined ? {} : of(value as NonNullable<RuntimeFile[K]>);
  };
  return {
    ...set("hypervisor", (hypervisor) => ({ hypervisor })),
    ...set("machine_type", (instanceType) => ({ instanceType })),
    ...set("image", (image) => ({ image })),
    ...set("default_vcpus", (vcpus) => ({ vcpus })),
    ...set("default_memory", (memoryMiB) => ({ memoryMiB })),
    ...set("enable_annotations", (patterns) => ({ gate: annotationGate(patterns, `enable_annotations in ${origin}`) })),
    ...set("experimental_force_guest_pull", (guestPull) => ({ guestPull })),
    ...set("confidential_guest", (confidential) => ({ confidential })),
    ...set("allow_node_rootfs", (allowNodeRootfs) => ({ allowNodeRootfs })),
    ...set("create_container_timeout", (s) => ({ createContainerTimeoutMs: s * 1_000 })),
    ...set("remote_hypervisor_timeout", (s) => ({ startVmTimeoutMs: s * 1_000 })),
    ...set("disable_guest_seccomp", (off) => ({ seccomp: !off })),
  };
}
