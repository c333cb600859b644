import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { tablePriceUsd } from "./price-table.ts";

describe("the price table", () => {
  it("has sizes in proportion, by location", () => {
    assert.equal(tablePriceUsd("Standard_DC2as_v5", "eastus"), 0.121);
    assert.equal(tablePriceUsd("Standard_DC16as_v5", "westeurope"), 0.134 * 8);
    assert.equal(tablePriceUsd("Standard_D4s_v5", "westus2"), 0.192);
    assert.equal(tablePriceUsd("Standard_E8s_v5", "eastus2"), 0.504);
  });

  it("says nothing of what it does not know", () => {
    for (const [size, location] of [
      ["Standard_DC2as_v5", "japaneast"],
      ["Standard_D2s_v5", "westeurope"],
      ["Standard_DC2es_v5", "eastus"],
      ["Standard_E4-2as_v5", "eastus"],
      ["Standard_DC2as_v6", "eastus"],
      ["nonsense", "eastus"],
    ] as const)
      assert.equal(tablePriceUsd(size, location), undefined, `${size} ${location}`);
  });
});
