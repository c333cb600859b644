import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hourlyPriceUsd } from "./prices.ts";

describe("the price table", () => {
  it("has sizes in proportion, and SEV-SNP's share on top", () => {
    assert.equal(hourlyPriceUsd("m6a.large", "us-east-2", false), 0.0864);
    assert.equal(hourlyPriceUsd("m6a.4xlarge", "us-east-2", false), 0.0864 * 8);
    assert.ok(Math.abs((hourlyPriceUsd("m6a.xlarge", "us-east-2", true) ?? 0) - 0.19008) < 1e-9);
    assert.equal(hourlyPriceUsd("g5.12xlarge", "us-west-2", false), 5.672);
  });

  it("says nothing of what it does not know", () => {
    for (const [type, region] of [
      ["m6a.large", "eu-west-1"],
      ["m6a.metal", "us-east-2"],
      ["x2idn.large", "us-east-2"],
      ["nonsense", "us-east-2"],
    ] as const)
      assert.equal(hourlyPriceUsd(type, region, true), undefined, `${type} ${region}`);
  });
});
