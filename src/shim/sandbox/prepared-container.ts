import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { checkContainerId } from "../../base/ids.ts";
import type { DirectVolume } from "../../relay/index.ts";
import { type MountPlan, OciSpec, parseOci, planMounts, refuseUnsupported } from "../agent/index.ts";
import { type RootSource, rootSource } from "../images/index.ts";
import { type CopyLimits, measureCopy, type NodeFiles } from "../volumes/index.ts";
import type { Emit, Stdio } from "./container-event.ts";
import { type AnnotationGate, type PodOverrides, podOverrides } from "./pod-overrides.ts";
import { type PodRole, podRole } from "./pod-role.ts";
import { checkRootfs, type RootfsMount } from "./rootfs.ts";
import { sourceFacts } from "./source-facts.ts";

/** What a Create request asks for. */
export interface ContainerRequest {
  readonly id: string;
  readonly bundle: string;
  readonly rootfs: readonly RootfsMount[];
  readonly stdio: Stdio;
  /** From the runtime's options; annotations win. */
  readonly overrides: PodOverrides;
  readonly emit: Emit;
  /** Writes the container's record, for the next daemon. */
  readonly save: () => Promise<void>;
}

/** What a pod that has no sandbox container gives to each of its containers. */
export interface PodExtras {
  /** Files of the node, by where containers have them that do not say otherwise: hosts, hostname, resolv.conf. */
  readonly files: Readonly<Record<string, string>>;
  readonly sysctls: Readonly<Record<string, string>>;
}

/** A request that was looked at from all sides that need no VM. */
export interface PreparedContainer {
  readonly request: ContainerRequest;
  readonly spec: OciSpec;
  readonly role: PodRole;
  readonly overrides: PodOverrides;
  readonly root: RootSource;
  readonly plan: MountPlan;
}

export interface PrepareOptions extends CopyLimits {
  /** Directories of the node that pods may get copies of. */
  readonly hostPaths: readonly string[];
  readonly files: NodeFiles;
  /** Volumes of the cloud that a pod's VM has. */
  readonly volumes: (podUid: string) => Promise<readonly DirectVolume[]>;
  /** Where root file systems come from when neither pod nor runtime class says so. */
  readonly rootfs: "node" | "guest";
  /** Where the runtime's file says nothing. */
  readonly gate: AnnotationGate;
  /** By id of the pod's sandbox; undefined: its sandbox container has brought them. */
  readonly extras: (sandboxId: string) => PodExtras | undefined;
}

/**
 * Reads the bundle's config.json and finds everything that is wrong with a request before a VM is asked for.
 * @throws Fault that names the field, its value and the remedy
 */
export async function prepareContainer(
  request: ContainerRequest,
  options: PrepareOptions,
  call: Call,
): Promise<PreparedContainer> {
  checkContainerId(request.id);
  const origin = join(request.bundle, "config.json");
  const text = await readFile(origin, "utf8").catch((cause: unknown) => {
    throw new Fault(
      "invalid_argument",
      `${origin} cannot be read: it must hold the container's OCI runtime spec`,
      {},
      { cause },
    );
  });
  const asked = parseOci(OciSpec, text, origin);
  const annotations = asked.annotations ?? {};
  const role = podRole(annotations, request.id);
  const extras = role.containerType === "pod_container" ? options.extras(role.sandboxContainerId) : undefined;
  const spec = extras === undefined ? asked : withExtras(asked, extras);
  const overrides = {
    ...request.overrides,
    ...podOverrides(annotations, request.overrides.gate ?? options.gate),
  };
  refuseUnsupported(spec, origin);
  const root = rootSource({
    ...{ ...overrides, preferred: options.rootfs, containerType: role.containerType, annotations },
    mounts: request.rootfs,
  });
  if (root.kind === "node")
    await checkRootfs({ mounts: request.rootfs, bundle: request.bundle, rootPath: spec.root.path });
  const volumes = await options.volumes(role.pod.uid);
  const plan = await planMounts({
    volumes: new Map(volumes.map((volume) => [volume.source, volume])),
    owner: { containerId: request.id, sandboxContainerId: role.sandboxContainerId, podUid: role.pod.uid },
    mounts: spec.mounts ?? [],
    facts: (source) => sourceFacts(source, options.files),
    // Without a pod (ctr, nerdctl) whoever names a directory is root on the node himself.
    hostPaths: role.containerType === "single_container" ? undefined : options.hostPaths,
    origin,
  });
  for (const copy of plan.copies) await measureCopy({ ...copy, at: options.files.reach(copy.source) }, options);
  call.signal.throwIfAborted();
  return { request, spec, role, overrides, root, plan };
}

function withExtras(spec: OciSpec, extras: PodExtras): OciSpec {
  const mounts = spec.mounts ?? [];
  const has = new Set(mounts.map((m) => m.destination));
  const options = ["rbind", ...(spec.root.readonly === true ? ["ro"] : [])];
  const more = Object.entries(extras.files)
    .filter(([destination]) => !has.has(destination))
    .map(([destination, source]) => ({ destination, type: "bind", source, options }));
  const sysctl = { ...extras.sysctls, ...spec.linux?.sysctl };
  return { ...spec, mounts: [...mounts, ...more], linux: { ...spec.linux, sysctl } };
}
