import type { Place, Shortage } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";
import { nameOf, partOf } from "./names.ts";
import type { VmSize } from "./sizes.ts";

export type Market = "spot" | "regular";

/** One way to get the VM. */
export interface Candidate {
  readonly size: VmSize;
  /** undefined leaves it to Azure. */
  readonly zone: string | undefined;
  readonly subnet: string;
  readonly market: Market;
}

/** Names a candidate, for as long as the configuration names its parts. */
export function candidateKey({ size, zone, subnet, market }: Candidate): string {
  const network = `${partOf(subnet, "resourceGroups")}.${partOf(subnet, "virtualNetworks")}.${nameOf(subnet)}`;
  return [size.name, zone ?? "any", network, market].join("/");
}

/** For people. */
export function describeCandidate({ size, zone, market }: Candidate): string {
  return `${size.name}${zone === undefined ? "" : ` in zone ${zone}`}${market === "spot" ? " (spot)" : ""}`;
}

/** All spot ones first where both are wanted: a larger spot VM costs less than a small one at the regular price. */
export function listCandidates(sizes: readonly VmSize[], config: AzureConfig): readonly Candidate[] {
  const markets: readonly Market[] = config.market === "spot-then-regular" ? ["spot", "regular"] : [config.market];
  return markets.flatMap((market) =>
    sizes
      .filter((size) => market === "regular" || size.spot)
      .flatMap((size) =>
        zonesFor(size, config).flatMap((zone) => config.subnets.map((subnet) => ({ size, zone, subnet, market }))),
      ),
  );
}

/** Where a size is in none of the wanted zones it is had nowhere: the operator has chosen them for a reason. */
function zonesFor(size: VmSize, { zones }: AzureConfig): readonly (string | undefined)[] {
  return zones.length === 0 ? [undefined] : zones.filter((zone) => size.zones.includes(zone));
}

const SCOPES: readonly Shortage[] = ["capacity", "not-offered", "quota", "subnet-full"];

export function toPlace(candidate: Candidate): Place {
  const scopes = Object.fromEntries(SCOPES.map((kind) => [kind, scopeOf(kind, candidate)]));
  return {
    ...{ key: candidateKey(candidate), text: describeCandidate(candidate) },
    scopes: scopes as Readonly<Record<Shortage, string>>,
  };
}

/** What else is short when this candidate is. Spot VMs of all families share one quota. */
function scopeOf(kind: Shortage, { size, zone, subnet, market }: Candidate): string {
  if (kind === "subnet-full") return `subnet/${subnet}`;
  if (kind === "quota") return market === "spot" ? "quota/spot" : `quota/${size.family}`;
  if (kind === "not-offered") return `offer/${size.name}/${zone ?? "any"}/${market}`;
  return `pool/${size.name}/${zone ?? "any"}/${market}`;
}
