/** Day of the prices below: they are for an estimate, AWS' own price list is what counts. */
export const PRICES_AS_OF = "2025-06-30";

/** Regions whose on-demand prices are those of the table. */
const REGIONS: ReadonlySet<string> = new Set(["us-east-1", "us-east-2", "us-west-2"]);

/**
 * USD per hour of a family's "large", on demand, Linux, shared tenancy; its other sizes cost in proportion.
 * Written down by hand; of these only m7g.large and g5.xlarge were compared with a published list (June 2026).
 */
const LARGE: Readonly<Record<string, number>> = {
  ...{ m6a: 0.0864, c6a: 0.0765, r6a: 0.1134 },
  ...{ m6i: 0.096, c6i: 0.085, r6i: 0.126, m7i: 0.1008, c7i: 0.08925, r7i: 0.1323 },
  ...{ m6g: 0.077, c6g: 0.068, r6g: 0.1008, m7g: 0.0816, c7g: 0.0725, r7g: 0.1071 },
  ...{ t3: 0.0832, t3a: 0.0752, t4g: 0.0672 },
};

/** Those whose sizes do not cost in proportion. */
const TYPES: Readonly<Record<string, number>> = {
  ...{ "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g5.4xlarge": 1.624, "g5.8xlarge": 2.448, "g5.12xlarge": 5.672 },
  ...{ "g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752, "g4dn.12xlarge": 3.912 },
};

/** What SEV-SNP costs on top. Source: EC2 user guide, "AMD SEV-SNP", pricing. */
const SEV_SNP_FACTOR = 1.1;

/** List price of an instance type, USD per hour, without its disks; undefined where this table has none. */
export function hourlyPriceUsd(type: string, region: string, sevSnp: boolean): number | undefined {
  if (!REGIONS.has(region)) return undefined;
  const [family = "", size = ""] = type.split(".");
  const [large, factor] = [LARGE[family], sizeFactor(size)];
  const plain = TYPES[type] ?? (large === undefined || factor === undefined ? undefined : large * factor);
  return plain === undefined ? undefined : plain * (sevSnp ? SEV_SNP_FACTOR : 1);
}

/** How many times a "large" a size is. */
function sizeFactor(size: string): number | undefined {
  const small: Readonly<Record<string, number>> = { small: 0.25, medium: 0.5, large: 1, xlarge: 2 };
  const many = /^(\d+)xlarge$/.exec(size)?.[1];
  return small[size] ?? (many === undefined ? undefined : Number(many) * 2);
}
