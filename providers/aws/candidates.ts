import type { Shortage } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";

export type Market = "spot" | "on-demand";

export interface Place {
  readonly subnetId: string;
  readonly zone: string;
  /** Of the second network interface. */
  readonly externalSubnetId?: string | undefined;
}

/** One way to get the VM. */
export interface Candidate {
  readonly type: string;
  /** undefined leaves it to the launch template */
  readonly place: Place | undefined;
  readonly market: Market;
}

/** Names a candidate, for as long as the configuration names its parts. */
export function candidateKey({ type, place, market }: Candidate): string {
  return `${type}/${place?.subnetId ?? "template"}/${market}`;
}

/** For people. */
export function describeCandidate({ type, place, market }: Candidate): string {
  const where = place === undefined ? "" : ` in ${place.zone}`;
  return `${type}${where}${market === "spot" ? " (spot)" : ""}`;
}

/** All spot ones first where both are wanted: a larger spot instance costs less than a small one on demand. */
export function listCandidates(
  types: readonly string[],
  places: readonly Place[],
  market: AwsConfig["market"],
): readonly Candidate[] {
  const markets: readonly Market[] = market === "spot-then-on-demand" ? ["spot", "on-demand"] : [market];
  const where: readonly (Place | undefined)[] = places.length === 0 ? [undefined] : places;
  return markets.flatMap((m) => types.flatMap((type) => where.map((place) => ({ type, place, market: m }))));
}

/** Which vCPU quota a type counts against. Source: EC2 user guide, "On-Demand Instance quotas". */
export function quotaClass(type: string): string {
  const family = /^[a-z]+/.exec(type)?.[0] ?? "";
  if (family === "u" || family.startsWith("hpc") || family.startsWith("dl")) return family;
  if (family === "g" || family === "gr" || family === "vt") return "G and VT";
  if (family === "p") return "P";
  if (family === "inf" || family === "trn" || family === "f" || family === "x") return family;
  return "Standard";
}

/** What else is short when this candidate is: its pool, its subnet, or all of one quota. */
export function scopeOf(kind: Shortage, { type, place, market }: Candidate): string {
  if (kind === "subnet-full") return `subnet/${place?.subnetId ?? "template"}`;
  if (kind === "quota") return `quota/${quotaClass(type)}/${market}`;
  if (kind === "not-offered") return `offer/${type}/${place?.zone ?? "template"}`;
  return `pool/${type}/${place?.zone ?? "template"}/${market}`;
}
