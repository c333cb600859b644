import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { loadProvider } from "../../providers/registry.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import type { Provider } from "../../src/provider/index.ts";
import { Ec2Endpoint, installBoto, type Knobs, TEST_CREDENTIALS, WORKING_CONFIG } from "../clouds/ec2/index.ts";
import { type ProviderUnderTest, providerConformance } from "./provider.ts";

// The SDK takes its credentials from here, as it does in a pod.
process.env.AWS_ACCESS_KEY_ID = TEST_CREDENTIALS.accessKeyId;
process.env.AWS_SECRET_ACCESS_KEY = TEST_CREDENTIALS.secretAccessKey;

const boto = await installBoto();
const model = "missing" in boto ? undefined : boto.model;
const seen: { problems: string[]; requests: number } = { problems: [], requests: 0 };

/** Provider aws with the SDK as it is, against an EC2 endpoint of this process. */
async function awsUnderTest(knobs: Partial<Knobs>): Promise<ProviderUnderTest> {
  const endpoint = await Ec2Endpoint.start(model === undefined ? {} : { model });
  Object.assign(endpoint.account.knobs, knobs);
  const plugin = await loadProvider("aws");
  const config = parseConfig(plugin.configSchema, { ...WORKING_CONFIG, endpoint: endpoint.url }, "test");
  const open = (): Promise<Provider> => plugin.create(config, { log: silentLogger(), now: () => new Date() });
  const provider = await open();
  return {
    provider,
    reopen: open,
    async close() {
      await provider.close();
      seen.problems.push(...endpoint.replyProblems);
      seen.requests += endpoint.count();
      assert.deepEqual(endpoint.account.leftovers(), []);
      await endpoint[Symbol.asyncDispose]();
    },
  };
}

const against = model === undefined ? "" : `, held against botocore's model of EC2 ${model.version}`;
providerConformance(`aws over HTTP${against}`, () => awsUnderTest({}));
providerConformance(`aws with slow states, short pages and late listings${against}`, () =>
  awsUnderTest({ pendingMs: 200, hiddenDescribes: 1, maxPage: 1, emptyFirstPage: true }),
);

describe("the EC2 endpoint of this suite", () => {
  it("has sent replies of the published form only", { skip: "missing" in boto ? boto.missing : false }, () => {
    assert.ok(seen.requests > 50, `only ${seen.requests} requests came in`);
    assert.deepEqual(seen.problems, []);
  });
});
