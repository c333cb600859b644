import type { InstanceTypeInfo } from "@aws-sdk/client-ec2";
import { Fault } from "../../src/base/fault.ts";
import { bySize, type InstanceSpec, isAtLeast } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";

/** What the choice of an instance type goes by. */
export interface TypeSize {
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly archs: readonly string[];
  readonly sevSnp: boolean;
  readonly bareMetal: boolean;
}

export type SizeRequest = Pick<InstanceSpec, "instanceType" | "vcpus" | "memoryMiB" | "gpus">;
type Choice = Pick<AwsConfig, "instanceType" | "arch" | "tee">;

/** Patterns of every type that may be used. */
export function allowedTypes(config: Pick<AwsConfig, "instanceType" | "instanceTypes">): readonly string[] {
  return [...new Set([config.instanceType, ...config.instanceTypes])];
}

export function toTypeSize(info: InstanceTypeInfo): TypeSize {
  return {
    name: info.InstanceType ?? "",
    vcpus: info.VCpuInfo?.DefaultVCpus ?? 0,
    memoryMiB: info.MemoryInfo?.SizeInMiB ?? 0,
    gpus: (info.GpuInfo?.Gpus ?? []).reduce((sum, gpu) => sum + (gpu.Count ?? 0), 0),
    archs: info.ProcessorInfo?.SupportedArchitectures ?? [],
    sevSnp: info.ProcessorInfo?.SupportedFeatures?.includes("amd-sev-snp") ?? false,
    bareMetal: info.BareMetal ?? false,
  };
}

/**
 * Types that a pod can run on, best first: the one it names; or every one that is large enough, smallest first, by a
 * look at all of them (peer-pods wire contract §3.4 and W-17: a binary search misses some). 0 asks for nothing, so that
 * a request for only vCPUs or only memory is honoured.
 * @throws Fault invalid_argument naming what is asked for and what there is
 */
export function fittingTypes(
  allowed: readonly TypeSize[],
  request: SizeRequest,
  config: Choice,
): readonly [TypeSize, ...TypeSize[]] {
  const usable = allowed.filter((t) => unsuitable(t, config) === undefined);
  if (request.instanceType !== undefined) return [namedType(allowed, request.instanceType, config)];
  const { vcpus, memoryMiB, gpus } = request;
  if (vcpus === 0 && memoryMiB === 0 && gpus === 0) {
    const first = namedType(allowed, config.instanceType, config);
    const larger = usable.filter((t) => t !== first && isAtLeast(t, first)).sort(bySize);
    return [first, ...larger];
  }
  // A GPU type for a pod that wants none would be the dearest way to give it two vCPUs.
  const [best, ...others] = usable.filter((t) => !t.bareMetal && isAtLeast(t, request)).sort(bySize);
  if (best === undefined) throw nothingFits(usable, request, config);
  return [best, ...others];
}

function namedType(allowed: readonly TypeSize[], name: string, config: Choice): TypeSize {
  const type = allowed.find((t) => t.name === name);
  if (type === undefined) {
    const names = allowed.map((t) => t.name).join(", ") || "none";
    throw refuse(`instance type "${name}" is not among those that providers.aws.instanceTypes allows here: ${names}`);
  }
  const problem = unsuitable(type, config);
  if (problem !== undefined) throw refuse(`instance type "${name}" ${problem}`);
  return type;
}

function unsuitable(type: TypeSize, { arch, tee }: Choice): string | undefined {
  if (!type.archs.includes(arch)) return `is ${type.archs.join("/")}, providers.aws.arch is ${arch}`;
  if (tee === "sev-snp" && !type.sevSnp) return "has no SEV-SNP, which providers.aws.tee asks for";
  return undefined;
}

function nothingFits(usable: readonly TypeSize[], request: SizeRequest, { arch, tee }: Choice): Fault {
  const { vcpus, memoryMiB, gpus } = request;
  const wanted = [
    vcpus > 0 ? `${vcpus} vCPUs` : "",
    memoryMiB > 0 ? `${memoryMiB} MiB of memory` : "",
    gpus > 0 ? `${gpus} GPUs` : "no GPU",
  ].filter((part) => part !== "");
  const there = usable.map((t) => `${t.name} (${t.vcpus} vCPUs, ${t.memoryMiB} MiB, ${t.gpus} GPUs)`).join(", ");
  const kind = tee === "sev-snp" ? `${arch} instance type with SEV-SNP` : `${arch} instance type`;
  return refuse(`no allowed ${kind} has ${wanted.join(" and ")}: providers.aws.instanceTypes gives ${there || "none"}`);
}

function refuse(message: string): Fault {
  return new Fault("invalid_argument", message, { provider: "aws" });
}
