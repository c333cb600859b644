import type { AwsConfig } from "./config.ts";
import type { AwsFaultKind } from "./faults.ts";

export type Market = "spot" | "on-demand";

export interface Place {
  readonly subnetId: string;
  readonly zone: string;
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

/** How long it is believed that something is short, ms. */
const BELIEVED_MS = { capacity: 180_000, "not-offered": 3_600_000, "subnet-full": 60_000, quota: 60_000 } as const;
export type Shortage = keyof typeof BELIEVED_MS;

export function isShortage(kind: AwsFaultKind | undefined): kind is Shortage {
  return kind !== undefined && kind in BELIEVED_MS;
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

/** Remembers what was short, so that the next create begins where there is hope. It only changes the order: nothing is ruled out. */
export class Shortages {
  readonly #now: () => Date;
  /** Until when, by what is short. */
  readonly #short = new Map<string, number>();

  constructor(deps: { readonly now: () => Date }) {
    this.#now = deps.now;
  }

  note(kind: Shortage, candidate: Candidate): void {
    this.#short.set(scopeOf(kind, candidate), this.#now().getTime() + BELIEVED_MS[kind]);
  }

  /** Those with hope first, in their order; then the others, the one whose shortage is oldest first. */
  order(candidates: readonly Candidate[]): readonly Candidate[] {
    const now = this.#now().getTime();
    for (const [scope, until] of this.#short) if (until <= now) this.#short.delete(scope);
    const hopeful = candidates.filter((c) => this.#until(c) === 0);
    const short = candidates.filter((c) => this.#until(c) > 0).sort((a, b) => this.#until(a) - this.#until(b));
    return [...hopeful, ...short];
  }

  #until(candidate: Candidate): number {
    const kinds = Object.keys(BELIEVED_MS) as Shortage[];
    return Math.max(...kinds.map((kind) => this.#short.get(scopeOf(kind, candidate)) ?? 0));
  }
}

/** What else is short when this candidate is: its pool, its subnet, or all of one quota. */
export function scopeOf(kind: Shortage, { type, place, market }: Candidate): string {
  if (kind === "subnet-full") return `subnet/${place?.subnetId ?? "template"}`;
  if (kind === "quota") return `quota/${quotaClass(type)}/${market}`;
  if (kind === "not-offered") return `offer/${type}/${place?.zone ?? "template"}`;
  return `pool/${type}/${place?.zone ?? "template"}/${market}`;
}
