import { Fault } from "../../base/fault.ts";
import type { CreateSandboxRequest } from "../../gen/containerd/runtime/sandbox/v1/sandbox.ts";
import { NamespaceMode, PodSandboxConfig } from "../../gen/cri/runtime/v1/api.ts";
import { refusalFault } from "../agent/index.ts";
import { limitsToSize, type PodRequest, type PodRole } from "../sandbox/index.ts";

/** What a CreateSandbox request says of its pod. */
export interface PodConfig {
  readonly pod: PodRole["pod"];
  readonly annotations: Readonly<Record<string, string>>;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly dns: readonly string[];
  readonly hostname: string;
  readonly sharedProcesses: boolean;
  readonly limits: PodRequest["size"];
}

/** Source: containerd core/sandbox, internal/cri/server/sandbox_run.go (2.0 - 2.3): CRI's own message goes through. */
const CONFIG_TYPE = "runtime.v1.PodSandboxConfig";
const ORIGIN = "pod sandbox";

/**
 * Reads the pod's configuration. Who is not a CRI may leave it out.
 * @throws Fault invalid_argument for another type of options, failed_precondition for what a pod VM cannot give
 */
export function readPodConfig(request: CreateSandboxRequest): PodConfig {
  const config = decode(request);
  const { metadata, dnsConfig, linux, annotations } = config;
  const modes = linux?.securityContext?.namespaceOptions;
  refuseHost(modes);
  const resources = linux?.resources;
  return {
    pod: { namespace: metadata?.namespace ?? "", name: metadata?.name ?? request.sandboxId, uid: metadata?.uid ?? "" },
    annotations: { ...annotations, ...request.annotations },
    sysctls: { ...linux?.sysctls },
    hostname: config.hostname === "" ? request.sandboxId : config.hostname,
    dns: [
      ...lines("search", dnsConfig?.searches ?? [], true),
      ...lines("nameserver", dnsConfig?.servers ?? [], false),
      ...lines("options", dnsConfig?.options ?? [], true),
    ],
    // CRI's zero means "shared": only who says anything says that.
    sharedProcesses: modes?.pid === NamespaceMode.POD,
    limits: limitsToSize({
      quota: Number(resources?.cpuQuota ?? 0n),
      period: Number(resources?.cpuPeriod ?? 0n),
      shares: Number(resources?.cpuShares ?? 0n),
      memoryBytes: Number(resources?.memoryLimitInBytes ?? 0n),
    }),
  };
}

function decode({ options }: CreateSandboxRequest): PodSandboxConfig {
  const type = (options?.typeUrl ?? "").replace(/^.*\//, "");
  if (options === undefined || type === "") return PodSandboxConfig.fromPartial({});
  if (type !== CONFIG_TYPE) {
    throw new Fault("invalid_argument", `options of a sandbox are of type "${type}": "${CONFIG_TYPE}" is expected`);
  }
  try {
    return PodSandboxConfig.decode(options.value);
  } catch (cause) {
    throw new Fault("invalid_argument", `options of a sandbox are no ${CONFIG_TYPE}`, {}, { cause });
  }
}

type Modes = NonNullable<NonNullable<NonNullable<PodSandboxConfig["linux"]>["securityContext"]>["namespaceOptions"]>;

function refuseHost(modes: Modes | undefined): void {
  if (modes === undefined) return;
  const node = NamespaceMode.NODE;
  const refuse = (field: string, setting: string) => ({
    field: `linux.security_context.namespace_options.${field}`,
    value: "NODE",
    remedy: `${setting} asks for what is the node's, which a pod VM does not have; remove that setting`,
  });
  const found = [
    ...(modes.network === node ? [refuse("network", "hostNetwork: true")] : []),
    ...(modes.pid === node ? [refuse("pid", "hostPID: true")] : []),
    ...(modes.ipc === node ? [refuse("ipc", "hostIPC: true")] : []),
  ];
  const users = modes.usernsOptions;
  if (users !== undefined && users.mode === NamespaceMode.POD && users.uids.length > 0) {
    found.push({
      field: "linux.security_context.namespace_options.userns_options",
      value: "POD",
      remedy: "the VM separates ids already; set hostUsers: true or leave it out",
    });
  }
  if (found.length > 0) throw refusalFault(found, ORIGIN);
}

/** Lines of a resolv.conf. */
function lines(keyword: string, values: readonly string[], together: boolean): string[] {
  if (values.length === 0) return [];
  return together ? [`${keyword} ${values.join(" ")}`] : values.map((value) => `${keyword} ${value}`);
}
