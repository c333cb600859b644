import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Place } from "../../provider/index.ts";
import { PlaceSearch } from "./place-search.ts";
import { Shortages } from "./shortages.ts";

function place(type: string, zone: string): Place {
  const key = `${type}/${zone}`;
  return {
    ...{ key, text: `${type} in ${zone}` },
    scopes: { capacity: key, "not-offered": key, quota: "quota/standard", "subnet-full": zone },
  };
}
const PLACES = [place("small", "a"), place("small", "b"), place("large", "a"), place("large", "b")];

function search(now = new Date(0), maxPlaces = 12) {
  const shortages = new Shortages({ now: () => now });
  return { shortages, found: new PlaceSearch({ shortages, maxPlaces }) };
}

describe("a search for a place", () => {
  it("goes through the places in order, and past those that share a shortage", () => {
    const { found } = search();
    const order: string[] = [];
    for (let next = found.next(PLACES); next !== undefined; next = found.next(PLACES)) {
      order.push(next.key);
      found.refused(next, next.key === "small/a" ? "subnet-full" : "capacity", "no");
    }
    assert.deepEqual(order, ["small/a", "small/b", "large/b"]);
  });

  it("ends with a quota that all places share, and says its numbers", () => {
    const { found } = search();
    found.refused(PLACES[0] as Place, "quota", "the quota of 64 vCPUs is used up: raise it");
    assert.equal(found.next(PLACES), undefined);
    const fault = found.fault({ provider: "aws" });
    assert.match(fault.message, /quota of 64 vCPUs is used up: raise it/);
    assert.equal(fault.retryable, false);
    assert.equal(fault.context.kind, "quota");
  });

  it("names every place that had no room, and is worth another try later", () => {
    const { found } = search(new Date(0), 2);
    for (const p of PLACES.slice(0, 2)) found.refused(p, "capacity", "no");
    assert.equal(found.next(PLACES), undefined, "no more than may be tried");
    const fault = found.fault({ provider: "aws" });
    assert.match(fault.message, /2 places have no room: small in a: no capacity, small in b: no capacity/);
    assert.ok(fault.retryable && Number(fault.context.retryAfterMs) > 0);
  });

  it("begins where there is hope while a shortage is remembered, and rules nothing out", () => {
    let now = 0;
    const shortages = new Shortages({ now: () => new Date(now) });
    shortages.note("capacity", PLACES[0] as Place);
    const keys = () => shortages.order(PLACES).map((p) => p.key);
    assert.deepEqual(keys(), ["small/b", "large/a", "large/b", "small/a"]);
    assert.equal(shortages.size, 1);
    now = 200_000;
    assert.deepEqual(keys()[0], "small/a");
    assert.equal(shortages.size, 0);
  });
});
