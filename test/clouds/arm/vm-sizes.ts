/** A VM size as the skus list has it. Source: `az vm list-skus` output; learn.microsoft.com "Sizes for virtual machines". */
export interface VmSize {
  readonly name: string;
  /** Quota family. */
  readonly family: string;
  readonly vcpus: number;
  readonly memoryGB: number;
  readonly gpus: number;
  readonly arch: "x64" | "Arm64";
  /** Generations of virtual hardware that it boots. */
  readonly generations: "V1,V2" | "V2";
  /** It starts confidential VMs, and only those. */
  readonly confidential?: "SNP" | "TDX";
  readonly maxNics: number;
  readonly premium: boolean;
  readonly spot: boolean;
  /** GiB of the temporary disk, which also holds an ephemeral OS disk. */
  readonly resourceDiskGiB: number;
  /** By location; a location that is missing does not have it at all. */
  readonly zones: Readonly<Record<string, readonly string[]>>;
}

const EVERYWHERE = { westeurope: ["1", "2", "3"], northeurope: ["1", "2", "3"], westus: [] } as const;
const CONFIDENTIAL = { westeurope: ["1", "2", "3"], northeurope: ["2", "3"] } as const;
const TDX = { westeurope: ["1", "3"] } as const;

function series(
  names: (vcpus: number) => string,
  sizes: readonly number[],
  memoryPerVcpu: number,
  rest: Pick<VmSize, "family" | "zones"> & Partial<VmSize>,
): VmSize[] {
  return sizes.map((vcpus) => ({
    ...{ name: names(vcpus), vcpus, memoryGB: vcpus * memoryPerVcpu, gpus: 0, arch: "x64", generations: "V1,V2" },
    ...{ maxNics: vcpus <= 4 ? 2 : vcpus <= 8 ? 4 : 8, premium: true, spot: true, resourceDiskGiB: 0 },
    ...rest,
  }));
}

export const VM_SIZES: readonly VmSize[] = [
  ...series((n) => `Standard_D${n}s_v5`, [2, 4, 8, 16, 32], 4, { family: "standardDSv5Family", zones: EVERYWHERE }),
  ...series((n) => `Standard_D${n}ads_v5`, [2, 4, 8], 4, {
    ...{ family: "standardDADSv5Family", zones: EVERYWHERE, resourceDiskGiB: 75 },
  }),
  ...series((n) => `Standard_E${n}s_v5`, [2, 4, 8], 8, { family: "standardESv5Family", zones: EVERYWHERE }),
  ...series((n) => `Standard_F${n}s_v2`, [2, 4, 8], 2, {
    ...{ family: "standardFSv2Family", zones: EVERYWHERE, resourceDiskGiB: 16 },
  }),
  ...series((n) => `Standard_D${n}ps_v5`, [2, 4], 4, {
    ...{ family: "standardDPSv5Family", zones: EVERYWHERE, arch: "Arm64", generations: "V2" },
  }),
  ...series((n) => `Standard_DC${n}as_v5`, [2, 4, 8, 16], 4, {
    ...{ family: "standardDCASv5Family", zones: CONFIDENTIAL, confidential: "SNP", generations: "V2" },
  }),
  ...series((n) => `Standard_DC${n}ads_v5`, [2, 4, 8], 4, {
    ...{ family: "standardDCADSv5Family", zones: CONFIDENTIAL, confidential: "SNP", generations: "V2" },
    resourceDiskGiB: 75,
  }),
  ...series((n) => `Standard_EC${n}as_v5`, [2, 4, 8], 8, {
    ...{ family: "standardECASv5Family", zones: CONFIDENTIAL, confidential: "SNP", generations: "V2" },
  }),
  ...series((n) => `Standard_DC${n}es_v5`, [2, 4, 8], 4, {
    ...{ family: "standardDCESv5Family", zones: TDX, confidential: "TDX", generations: "V2", spot: false },
  }),
  ...series((n) => `Standard_NC${n}as_T4_v3`, [4, 8], 7, {
    ...{ family: "Standard NCASv3_T4 Family", zones: { westeurope: ["1", "2"] }, gpus: 1, resourceDiskGiB: 180 },
  }),
  ...series((n) => `Standard_NCC${n}ads_H100_v5`, [40], 8, {
    ...{ family: "StandardNCCadsH100v5Family", zones: { westeurope: ["1"] }, gpus: 1, spot: false },
    ...{ confidential: "SNP" as const, generations: "V2" as const },
  }),
  ...series((n) => `Standard_B${n}ms`, [1, 2], 4, { family: "standardBSFamily", zones: EVERYWHERE, spot: false }),
];

export function findSize(name: string): VmSize | undefined {
  return VM_SIZES.find((s) => s.name.toLowerCase() === name.toLowerCase());
}
