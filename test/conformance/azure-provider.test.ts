import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AzureWorld, installAzureSdk, type Knobs } from "../clouds/arm/index.ts";
import { type ProviderUnderTest, providerConformance } from "./provider.ts";

const sdk = await installAzureSdk();
const model = "missing" in sdk ? undefined : sdk.model;
const seen: { problems: string[]; requests: number } = { problems: [], requests: 0 };

/** Provider azure with the SDK as it is, against an ARM endpoint of this process. */
async function azureUnderTest(knobs: Partial<Knobs>): Promise<ProviderUnderTest> {
  const world = await AzureWorld.open(model);
  const { endpoint } = world;
  Object.assign(endpoint.cloud.knobs, { retryAfterS: 0, ...knobs });
  return {
    provider: await world.provider(),
    reopen: () => world.provider(),
    async close() {
      seen.problems.push(...endpoint.replyProblems);
      seen.requests += endpoint.count();
      assert.deepEqual(endpoint.cloud.leftovers(), []);
      await world[Symbol.asyncDispose]();
    },
  };
}

const against = model === undefined ? "" : ", held against the models of Azure's Python SDK";
providerConformance(`azure over HTTPS${against}`, () => azureUnderTest({}));
providerConformance(`azure with slow states, short pages and late listings${against}`, () =>
  azureUnderTest({ createMs: 300, deleteMs: 300, networkMs: 50, hiddenLists: 1, maxPage: 1, emptyFirstPage: true }),
);
providerConformance(`azure that shows nothing at first and throttles${against}`, () =>
  azureUnderTest({
    ...{ createMs: 100, hiddenReads: 1 },
    buckets: new Map([
      ["GetVM", { capacity: 4, refillPerSecond: 40 }],
      ["PutVM", { capacity: 2, refillPerSecond: 10 }],
      ["DeleteVM", { capacity: 2, refillPerSecond: 10 }],
    ]),
  }),
);

describe("the ARM endpoint of this suite", { skip: "missing" in sdk ? sdk.missing : false }, () => {
  it("has sent replies of the published form only", () => {
    assert.ok(seen.requests > 50, `only ${seen.requests} requests came in`);
    assert.deepEqual(seen.problems, []);
  });
});
