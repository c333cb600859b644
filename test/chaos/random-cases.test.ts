import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CASES } from "./cases.ts";
import { CREATE_STEPS, DELETE_STEPS } from "./chaos-case.ts";
import { doubles } from "./cloud.ts";
import { randomCases } from "./random-cases.ts";
import { LEASE_MS } from "./world-config.ts";

describe("random cases", () => {
  it("are the same for the same seed, and each can be had alone", () => {
    const all = randomCases(7, 50);
    assert.deepEqual(randomCases(7, 50), all);
    assert.deepEqual(randomCases(31, 1)[0], all[24]);
    assert.notDeepEqual(randomCases(8, 50), all);
  });

  it("put back a copy of Redis only when they take one", () => {
    for (const { name, hits, snapshot } of randomCases(1, 500)) {
      assert.equal(
        snapshot !== undefined,
        hits.some(({ fault }) => fault.kind === "redis-old"),
        name,
      );
    }
  });
});

describe("the table of cases", () => {
  it("names each once, and kills each process at each step", () => {
    assert.equal(new Set(CASES.map((c) => c.name)).size, CASES.length);
    for (const whom of ["adaptor", "node", "redis"]) {
      for (const step of [...CREATE_STEPS, ...DELETE_STEPS]) {
        const found = CASES.some(
          ({ hits: [hit, ...more] }) =>
            more.length === 0 && hit?.at === step && hit.fault.kind === "kill" && hit.fault.whom === whom,
        );
        assert.ok(found, `${whom} at ${step}`);
      }
    }
  });

  it("has every kind of fault in the short run", () => {
    const kinds = (cases: typeof CASES) => new Set(cases.flatMap((c) => c.hits.map(({ fault }) => fault.kind)));
    assert.deepEqual(kinds(CASES.filter((c) => c.quick)), kinds(CASES));
  });
});

describe("the cases with two adaptors", () => {
  it("kill and freeze either at each step, for longer than a lease", () => {
    const cases = CASES.filter((c) => c.adaptors === "balanced" && c.hits.length === 1 && c.pods === undefined);
    for (const kind of ["kill", "pause"]) {
      for (const whom of ["adaptor", "adaptor-2"]) {
        for (const step of [...CREATE_STEPS, ...DELETE_STEPS]) {
          const found = cases.some(({ hits: [hit] }) => {
            if (hit?.at !== step || (hit.fault.kind !== "kill" && hit.fault.kind !== "pause")) return false;
            return hit.fault.kind === kind && hit.fault.whom === whom && hit.fault.downMs > LEASE_MS;
          });
          assert.ok(found, `${kind} ${whom} at ${step}`);
        }
      }
    }
    assert.ok(CASES.every((c) => (c.adaptors ?? "one") === "one" || c.store === "redis"));
  });
});

describe("the look at a cloud's history", () => {
  const vm = (id: string, owner: string, began: number, ended?: number) => ({ id, owners: [owner], began, ended });

  it("finds two VMs that lived for one sandbox at the same time, also when both are gone", () => {
    assert.deepEqual(doubles([vm("a", "s", 0, 10), vm("b", "s", 9, 20), vm("c", "s", 25)]), [
      "a and b lived at the same time for s",
    ]);
  });

  it("allows one after another, and others", () => {
    assert.deepEqual(doubles([vm("a", "s", 0, 10), vm("b", "s", 10), vm("c", "t", 0)]), []);
  });
});
