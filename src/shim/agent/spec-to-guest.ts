import { Spec } from "../../gen/agent/oci.ts";
import type { OciMount, OciSpec } from "./oci-spec.ts";
import { deviceToProto, processToProto, resourcesToProto, seccompToProto } from "./oci-to-proto.ts";

/** How containerd uses a container: the pod's pause container, one beside it, or pod and container at once (ctr). */
export type ContainerType = "pod_sandbox" | "pod_container" | "single_container";

export interface GuestSpecOptions {
  readonly containerType: ContainerType;
  /** Bundle directory on the node; the agent and genpolicy look at its name. */
  readonly bundle: string;
  /** Root file system in the guest. */
  readonly rootPath: string;
  /** Mounts as they shall be in the guest (planMounts). */
  readonly mounts: readonly OciMount[];
  /** Where the container writes its last words. */
  readonly terminationLog?: string | undefined;
  /** The agent can apply seccomp profiles and may. */
  readonly seccomp: boolean;
}

export interface GuestSpec {
  readonly spec: Spec;
  /** The container shares the pod's PID namespace. */
  readonly sandboxPidns: boolean;
}

const BUNDLE_PATH = "io.katacontainers.pkg.oci.bundle_path";
const CONTAINER_TYPE = "io.katacontainers.pkg.oci.container_type";
/** By it the agent knows which file GetDiagnosticData reads. containerd passes kubelet's on only where it is told to. */
const TERMINATION_LOG = "io.kubernetes.container.terminationMessagePath";
const NETNS = "nerdctl/network-namespace";
const HOST_ONLY_ANNOTATIONS = new Set([
  "io.katacontainers.config.hypervisor.cc_init_data",
  "io.katacontainers.config.agent.policy",
]);
/** Made by the VM for itself, whatever the node's spec says. */
const DROPPED_NAMESPACES = new Set(["network", "cgroup", "time"]);

/**
 * Turns a runtime spec of the node into the one the guest runs. Everything that is lost here on purpose is listed in
 * src/shim/README.md; what must not get lost was refused before (refuseUnsupported, planMounts).
 * Source: kata 4.1 constrainGRPCSpec; reference §2.5 "OCI spec conversion before sending".
 */
export function specToGuest(spec: OciSpec, options: GuestSpecOptions): GuestSpec {
  const { linux } = spec;
  const namespaces = linux?.namespaces ?? [];
  const sharedPid = namespaces.some((n) => n.type === "pid" && (n.path ?? "") !== "");
  const kept = namespaces.filter((n) => !DROPPED_NAMESPACES.has(n.type) && !(n.type === "pid" && sharedPid));
  return {
    sandboxPidns: sharedPid,
    spec: Spec.fromPartial({
      Version: spec.ociVersion,
      Process: processToProto(spec.process),
      Root: { Path: options.rootPath, Readonly: spec.root.readonly ?? false },
      Hostname: spec.hostname ?? "",
      Mounts: options.mounts.map((m) => ({
        destination: m.destination,
        source: m.source ?? "",
        type: m.type ?? "",
        options: m.options ?? [],
      })),
      Annotations: annotations(spec, options),
      Linux: {
        Sysctl: linux?.sysctl ?? {},
        Resources: linux?.resources === undefined ? undefined : resourcesToProto(linux.resources),
        CgroupsPath: linux?.cgroupsPath ?? "",
        Namespaces: kept.map((n) => ({ Type: n.type, Path: "" })),
        Devices: (linux?.devices ?? []).map(deviceToProto),
        Seccomp: options.seccomp && linux?.seccomp !== undefined ? seccompToProto(linux.seccomp) : undefined,
        RootfsPropagation: linux?.rootfsPropagation ?? "",
        MaskedPaths: linux?.maskedPaths ?? [],
        ReadonlyPaths: linux?.readonlyPaths ?? [],
        MountLabel: "",
      },
    }),
  };
}

function annotations(spec: OciSpec, options: GuestSpecOptions): Record<string, string> {
  const kept = Object.entries(spec.annotations ?? {}).filter(([key]) => !HOST_ONLY_ANNOTATIONS.has(key));
  const result: Record<string, string> = Object.fromEntries(kept);
  result[BUNDLE_PATH] = options.bundle;
  result[CONTAINER_TYPE] = options.containerType;
  if (options.terminationLog !== undefined) result[TERMINATION_LOG] ??= options.terminationLog;
  const netns = networkNamespacePath(spec);
  if (options.containerType !== "pod_container" && netns !== "") result[NETNS] = netns;
  return result;
}

/** The pod's network namespace on the node, "" when the spec names none. */
export function networkNamespacePath(spec: OciSpec): string {
  return spec.linux?.namespaces?.find((n) => n.type === "network")?.path ?? "";
}
