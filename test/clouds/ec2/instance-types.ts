/** What the endpoint knows of an instance type; the figures are those of the EC2 instance type pages. */
export interface InstanceType {
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly arch: "x86_64" | "arm64";
  readonly sevSnp: boolean;
  readonly gpu?: { readonly name: string; readonly count: number; readonly memoryMiB: number };
}

const snp = (name: string, vcpus: number, memoryMiB: number): InstanceType => ({
  ...{ name, vcpus, memoryMiB, arch: "x86_64", sevSnp: true },
});
const plain = (
  name: string,
  vcpus: number,
  memoryMiB: number,
  arch: InstanceType["arch"] = "x86_64",
): InstanceType => ({
  ...{ name, vcpus, memoryMiB, arch, sevSnp: false },
});

export const INSTANCE_TYPES: readonly InstanceType[] = [
  snp("m6a.large", 2, 8192),
  snp("m6a.xlarge", 4, 16_384),
  snp("m6a.2xlarge", 8, 32_768),
  snp("c6a.large", 2, 4096),
  snp("c6a.xlarge", 4, 8192),
  snp("c6a.2xlarge", 8, 16_384),
  snp("r6a.large", 2, 16_384),
  snp("r6a.xlarge", 4, 32_768),
  plain("t3.small", 2, 2048),
  plain("m7i.large", 2, 8192),
  plain("m7i.xlarge", 4, 16_384),
  plain("m6g.large", 2, 8192, "arm64"),
  plain("c7g.large", 2, 4096, "arm64"),
  plain("c7g.xlarge", 4, 8192, "arm64"),
  { ...plain("g5.xlarge", 4, 16_384), gpu: { name: "A10G", count: 1, memoryMiB: 24_576 } },
  { ...plain("g5.12xlarge", 48, 196_608), gpu: { name: "A10G", count: 4, memoryMiB: 24_576 } },
  { ...plain("p4d.24xlarge", 96, 1_179_648), gpu: { name: "A100", count: 8, memoryMiB: 40_960 } },
];

/** Which vCPU quota a type counts against. Source: EC2 user guide, "On-Demand Instance quotas". */
export function quotaClass(type: string): string {
  const family = /^[a-z]+/.exec(type)?.[0] ?? "";
  if (family.startsWith("g") || family.startsWith("vt")) return "G and VT";
  if (family.startsWith("p")) return "P";
  return "Standard";
}
