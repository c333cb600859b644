import type { Place, Shortage } from "../../provider/index.ts";

/** How long it is believed that something is short, ms. */
const BELIEVED_MS: Readonly<Record<Shortage, number>> = {
  ...{ capacity: 180_000, "not-offered": 3_600_000, "subnet-full": 60_000, quota: 60_000 },
};
const KINDS = Object.keys(BELIEVED_MS) as readonly Shortage[];

export function isShortage(kind: unknown): kind is Shortage {
  return typeof kind === "string" && Object.hasOwn(BELIEVED_MS, kind);
}

/** Remembers what was short, so that the next create begins where there is hope. It only changes the order: nothing is ruled out. */
export class Shortages {
  readonly #now: () => Date;
  /** Until when, by scope. */
  readonly #short = new Map<string, number>();

  constructor(deps: { readonly now: () => Date }) {
    this.#now = deps.now;
  }

  note(kind: Shortage, { scopes }: Pick<Place, "scopes">): void {
    this.#short.set(scopes[kind], this.#now().getTime() + BELIEVED_MS[kind]);
  }

  /** Those with hope first, in their order; then the others, the one whose shortage is over soonest first. */
  order(places: readonly Place[]): readonly Place[] {
    this.#forget();
    const hopeful = places.filter((p) => this.#until(p) === 0);
    const short = places.filter((p) => this.#until(p) > 0).sort((a, b) => this.#until(a) - this.#until(b));
    return [...hopeful, ...short];
  }

  /** How much is believed to be short, for metrics. */
  get size(): number {
    this.#forget();
    return this.#short.size;
  }

  #forget(): void {
    const now = this.#now().getTime();
    for (const [scope, until] of this.#short) if (until <= now) this.#short.delete(scope);
  }

  #until({ scopes }: Place): number {
    return Math.max(...KINDS.map((kind) => this.#short.get(scopes[kind]) ?? 0));
  }
}
