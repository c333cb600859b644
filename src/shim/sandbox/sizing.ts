import { Fault } from "../../base/fault.ts";
import type { OciSpec } from "../agent/index.ts";
import type { PodOverrides } from "./pod-overrides.ts";
import type { PodRole } from "./pod-role.ts";

/** What a pod may use; 0 = the backend's default. */
export interface PodSize {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
}

const MIB = 1_024 * 1_024;
/** Limits as large as this mean "none". Source: Linux PAGE_COUNTER_MAX, what runtimes write for unlimited. */
const NO_LIMIT = 2 ** 62;

/**
 * Size of a pod's VM: the explicit base (annotation) plus the limits of its containers, as CRI puts them on the
 * sandbox, or as the spec of a lone container has them.
 * @throws Fault invalid_argument naming the annotation
 * Source: reference §2.1 "Sizing"; kata static_sandbox_resource_mgmt.
 */
export function podSize(spec: OciSpec, role: PodRole, overrides: PodOverrides): PodSize {
  const limits = role.containerType === "single_container" ? specLimits(spec) : sandboxLimits(spec.annotations ?? {});
  return withBase(limitsToSize(limits), overrides);
}

/** What limits come to. */
export function limitsToSize(limits: Limits): PodSize {
  return { vcpus: vcpus(limits), memoryMiB: memoryMiB(limits), gpus: 0 };
}

/** Adds the explicit base. */
export function withBase(size: PodSize, overrides: PodOverrides): PodSize {
  return {
    vcpus: (overrides.vcpus ?? 0) + size.vcpus,
    memoryMiB: (overrides.memoryMiB ?? 0) + size.memoryMiB,
    gpus: overrides.gpus ?? 0,
  };
}

/** Of all containers of a pod together; 0 = none. CPU time in microseconds. */
export interface Limits {
  readonly quota: number;
  readonly period: number;
  readonly shares: number;
  readonly memoryBytes: number;
}

function vcpus({ quota, period, shares }: Limits): number {
  if (quota > 0 && period > 0) return quota / period;
  // An explicit "no quota" is the static CPU manager's: the shares say how many CPUs it gave.
  if (quota < 0 && shares > 0) return Math.ceil(shares / 1_024);
  return 0;
}

function memoryMiB({ memoryBytes }: Limits): number {
  return memoryBytes > 0 && memoryBytes < NO_LIMIT ? Math.ceil(memoryBytes / MIB) : 0;
}

function specLimits(spec: OciSpec): Limits {
  const { cpu, memory } = spec.linux?.resources ?? {};
  return {
    // Runtimes write -1 for "no limit"; only CRI's static CPU manager gives it a meaning.
    quota: Math.max(0, Number(cpu?.quota ?? 0)),
    period: Number(cpu?.period ?? 100_000),
    shares: 0,
    memoryBytes: Number(memory?.limit ?? 0),
  };
}

function sandboxLimits(annotations: Readonly<Record<string, string>>): Limits {
  const read = (name: string): number => {
    const key = `io.kubernetes.cri.sandbox-${name}`;
    const text = annotations[key];
    if (text === undefined || text === "") return 0;
    if (!/^-?\d+$/.test(text))
      throw new Fault("invalid_argument", `annotation ${key} = "${text}" is not valid: a whole number is expected`);
    return Number(text);
  };
  return {
    quota: read("cpu-quota"),
    period: read("cpu-period"),
    shares: read("cpu-shares"),
    memoryBytes: read("memory"),
  };
}
