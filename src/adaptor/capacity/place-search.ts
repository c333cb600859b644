import { Fault } from "../../base/fault.ts";
import type { Place, Shortage } from "../../provider/index.ts";
import type { Shortages } from "./shortages.ts";

interface Refusal {
  readonly place: Place;
  readonly kind: Shortage;
  readonly message: string;
}

const WHY: Readonly<Record<Shortage, string>> = {
  capacity: "no capacity",
  "not-offered": "not offered",
  "subnet-full": "no free address",
  quota: "quota used up",
};

/** What comes back by itself is looked for again after this, ms. */
const CAPACITY_RETRY_MS = 10_000;

/** One search for a place that has room, through an ordered list of them. */
export class PlaceSearch {
  readonly #shortages: Shortages;
  readonly #maxPlaces: number;
  readonly #refusals: Refusal[] = [];

  constructor(deps: { readonly shortages: Shortages; readonly maxPlaces: number }) {
    this.#shortages = deps.shortages;
    this.#maxPlaces = deps.maxPlaces;
  }

  /** The best place that was not refused, nor shares its shortage with one that was; undefined when none is left. */
  next(places: readonly Place[]): Place | undefined {
    if (this.#refusals.length >= this.#maxPlaces) return undefined;
    return this.#shortages.order(places).find((place) => !this.#refusals.some((r) => isSame(r, place)));
  }

  refused(place: Place, kind: Shortage, message: string): void {
    this.#shortages.note(kind, place);
    this.#refusals.push({ place, kind, message });
  }

  /**
   * Says with numbers why no place could be had. To be tried again when it was for capacity, which comes back by
   * itself; not for a quota alone, which an operator has to raise or other VMs have to leave.
   */
  fault(context: { readonly provider: string }): Fault {
    const quotas = this.#refusals.filter((r) => r.kind === "quota");
    const others = this.#refusals.filter((r) => r.kind !== "quota");
    const rooms = `${others.length} places have no room: ${others.map((r) => `${r.place.text}: ${WHY[r.kind]}`).join(", ")}`;
    const parts = [...quotas.map((r) => r.message), ...(others.length === 0 ? [] : [rooms])];
    const capacity = others.length > 0;
    return new Fault(
      "resource_exhausted",
      `no VM can be had: ${[...new Set(parts)].join("; ")}`,
      {
        ...{ ...context, kind: capacity ? "capacity" : "quota", tried: this.#refusals.length },
        ...(capacity ? { retryAfterMs: CAPACITY_RETRY_MS } : {}),
      },
      { retryable: capacity },
    );
  }
}

function isSame({ place, kind }: Refusal, other: Place): boolean {
  return place.key === other.key || place.scopes[kind] === other.scopes[kind];
}
