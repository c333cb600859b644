import type { ResourceSku } from "@azure/arm-compute";
import { Fault } from "../../src/base/fault.ts";
import { bySize, type InstanceSpec, isAtLeast } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";

/** What the choice of a VM size goes by. */
export interface VmSize {
  readonly name: string;
  /** Of quotas, as "standardDCASv5Family". */
  readonly family: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly arch: "x64" | "arm64";
  readonly tee: "sev-snp" | "tdx" | undefined;
  readonly gen2: boolean;
  readonly trustedLaunch: boolean;
  readonly spot: boolean;
  readonly premiumDisks: boolean;
  readonly encryptionAtHost: boolean;
  /** Most network interfaces. */
  readonly maxNics: number;
  readonly maxDataDisks: number;
  /** Those in which this subscription may use it. */
  readonly zones: readonly string[];
  /** Why this subscription may not use it here at all. */
  readonly restricted: string | undefined;
}

export type SizeRequest = Pick<InstanceSpec, "instanceType" | "vcpus" | "memoryMiB" | "gpus">;
type Choice = Pick<
  AzureConfig,
  "size" | "sizes" | "arch" | "tee" | "market" | "location" | "extraSubnets" | "dataDisksGiB" | "rootDiskType"
>;

/** Source: REST reference of resource SKUs; names and values of capabilities as `az vm list-skus` shows them. */
export function toVmSize(sku: ResourceSku): VmSize {
  const capability = (name: string): string | undefined =>
    sku.capabilities?.find((c) => c.name?.toLowerCase() === name.toLowerCase())?.value;
  const number = (name: string, fallback = 0): number => Number(capability(name) ?? fallback);
  const flag = (name: string): boolean => capability(name)?.toLowerCase() === "true";
  const restrictions = sku.restrictions ?? [];
  const shut = new Set(restrictions.filter((r) => r.type === "Zone").flatMap((r) => r.restrictionInfo?.zones ?? []));
  const zones = (sku.locationInfo ?? []).flatMap((info) => info.zones ?? []);
  const kind = capability("ConfidentialComputingType")?.toLowerCase();
  return {
    ...{ name: sku.name ?? "", family: sku.family ?? "" },
    vcpus: number("vCPUsAvailable", number("vCPUs")),
    memoryMiB: Math.floor(number("MemoryGB") * 1024),
    gpus: number("GPUs"),
    arch: capability("CpuArchitectureType")?.toLowerCase() === "arm64" ? "arm64" : "x64",
    tee: kind === "snp" ? "sev-snp" : kind === "tdx" ? "tdx" : undefined,
    gen2: (capability("HyperVGenerations") ?? "V1").includes("V2"),
    trustedLaunch: !flag("TrustedLaunchDisabled"),
    spot: flag("LowPriorityCapable"),
    premiumDisks: flag("PremiumIO"),
    encryptionAtHost: flag("EncryptionAtHostSupported"),
    maxNics: number("MaxNetworkInterfaces", 1),
    maxDataDisks: number("MaxDataDiskCount"),
    zones: [...new Set(zones)].filter((zone) => !shut.has(zone)).sort(),
    restricted: restrictions.find((r) => r.type === "Location")?.reasonCode,
  };
}

/** Sizes that the configuration allows, among those that the location has. */
export function allowedSizes(all: readonly VmSize[], { size, sizes }: Pick<AzureConfig, "size" | "sizes">): VmSize[] {
  const patterns = [size, ...sizes].map(asPattern);
  return all.filter(({ name }) => patterns.some((p) => p.test(name)));
}

/**
 * Sizes that a pod can run on, best first: the one it names; or every one that is large enough, smallest first, by a look
 * at all of them (peer-pods wire contract §3.4 and W-17: a binary search misses some). 0 asks for nothing, so that a
 * request for only vCPUs or only memory is honoured.
 * @param allowed by the configuration, at the location
 * @throws Fault invalid_argument naming what is asked for and what there is
 */
export function fittingSizes(
  allowed: readonly VmSize[],
  request: SizeRequest,
  config: Choice,
): readonly [VmSize, ...VmSize[]] {
  if (request.instanceType !== undefined) return [namedSize(allowed, request.instanceType, config)];
  const usable = allowed.filter((s) => unsuitable(s, config) === undefined);
  const { vcpus, memoryMiB, gpus } = request;
  if (vcpus === 0 && memoryMiB === 0 && gpus === 0) {
    const first = namedSize(allowed, config.size, config);
    const larger = usable.filter((s) => s !== first && isAtLeast(s, first)).sort(bySize);
    return [first, ...larger];
  }
  const [best, ...others] = usable.filter((s) => isAtLeast(s, request)).sort(bySize);
  if (best === undefined) throw nothingFits(usable, request, config);
  return [best, ...others];
}

function namedSize(allowed: readonly VmSize[], name: string, config: Choice): VmSize {
  const size = allowed.find((s) => s.name.toLowerCase() === name.toLowerCase());
  if (size === undefined) {
    const names = allowed.map((s) => s.name).join(", ") || "none";
    throw refuse(
      `VM size "${name}" is not among those that providers.azure.sizes allows in ${config.location}: ${names}`,
    );
  }
  const problem = unsuitable(size, config);
  if (problem !== undefined) throw refuse(`VM size "${name}" ${problem}`);
  return size;
}

/** Why a size cannot be used, for people; undefined when it can. */
export function unsuitable(size: VmSize, config: Choice): string | undefined {
  const { arch, tee, market, extraSubnets, dataDisksGiB, rootDiskType, location } = config;
  const nics = 1 + extraSubnets.length;
  if (size.restricted !== undefined) return `may not be used by this subscription in ${location} (${size.restricted})`;
  if (size.arch !== arch) return `is ${size.arch}, providers.azure.arch is ${arch}`;
  if (tee === "none") {
    // Its firmware starts nothing but confidential VMs.
    if (size.tee !== undefined) return `starts confidential VMs only, providers.azure.tee is "none"`;
  } else if (size.tee === undefined) return "makes no confidential VMs, which providers.azure.tee asks for";
  else if (tee !== "any" && size.tee !== tee) return `is for ${size.tee}, providers.azure.tee is ${tee}`;
  if (market === "spot" && !size.spot) return "cannot be had as a spot VM";
  if (nics > size.maxNics) return `has at most ${size.maxNics} network interfaces, ${nics} are configured`;
  if (dataDisksGiB.length > size.maxDataDisks) return `has at most ${size.maxDataDisks} data disks`;
  if (rootDiskType.startsWith("Premium") && !size.premiumDisks) return `has no premium disks, as rootDiskType says`;
  return undefined;
}

function nothingFits(usable: readonly VmSize[], request: SizeRequest, { arch, tee, location }: Choice): Fault {
  const { vcpus, memoryMiB, gpus } = request;
  const wanted = [
    vcpus > 0 ? `${vcpus} vCPUs` : "",
    memoryMiB > 0 ? `${memoryMiB} MiB of memory` : "",
    gpus > 0 ? `${gpus} GPUs` : "no GPU",
  ].filter((part) => part !== "");
  const there = usable.map((s) => `${s.name} (${s.vcpus} vCPUs, ${s.memoryMiB} MiB, ${s.gpus} GPUs)`).join(", ");
  const kind = tee === "none" ? `${arch} VM size` : `VM size with confidential VMs (${tee})`;
  return refuse(
    `no allowed ${kind} in ${location} has ${wanted.join(" and ")}: providers.azure.sizes gives ${there || "none"}`,
  );
}

function refuse(message: string): Fault {
  return new Fault("invalid_argument", message, { provider: "azure", kind: "bad-request" });
}

/** Azure compares names of sizes without regard to case. */
export function asPattern(pattern: string): RegExp {
  const escaped = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${escaped}$`, "i");
}
