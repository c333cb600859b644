import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import { AzureWorld } from "../../test/clouds/arm/index.ts";
import { faultOf } from "./test-support.ts";

const NAMES = [
  "AZURE_TENANT_ID",
  "AZURE_CLIENT_ID",
  "AZURE_CLIENT_SECRET",
  "AZURE_FEDERATED_TOKEN_FILE",
  "AZURE_POD_IDENTITY_AUTHORITY_HOST",
  "AZURE_AUTHORITY_HOST",
];
let world: AzureWorld;
beforeEach(async () => {
  world = await AzureWorld.open();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  for (const name of NAMES) delete process.env[name];
});

async function works(config: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const provider = await world.provider(config);
  await provider.createInstance(world.spec(), background());
}

describe("credentials", () => {
  it("are a service principal's of the environment", async () => {
    await works();
    await works({ credential: "environment" });
  });

  it("are a service account's token where workload identity has put one", async () => {
    delete process.env.AZURE_CLIENT_SECRET;
    const folder = await mkdtemp(join(tmpdir(), "azure-credentials-"));
    try {
      const file = join(folder, "token");
      await writeFile(file, world.endpoint.tenant.serviceAccountToken());
      process.env.AZURE_FEDERATED_TOKEN_FILE = file;
      await works();
      await works({ credential: "workload-identity" });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it("are the machine's own where there are no others", async () => {
    for (const name of NAMES) delete process.env[name];
    process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST = world.endpoint.metadataUrl;
    await works({ credential: "managed-identity" });
    await works();
  });

  it("that are refused are said to be so, and nothing is repeated", async () => {
    process.env.AZURE_CLIENT_SECRET = "wrong";
    const provider = await world.provider({ credential: "environment" });
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.equal(fault.code, "permission_denied");
    const [finding, ...others] = await provider.verify(background());
    assert.deepEqual([finding?.subject, finding?.state, others.length], ["credentials", "error", 0]);
    assert.match(finding?.remedy ?? "", /workload identity/);
  });

  it("that there are none of are said to be missing", async () => {
    for (const name of NAMES) delete process.env[name];
    const server = createServer((_, response) => response.writeHead(404).end());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const provider = await world.provider({ credential: "workload-identity" });
      assert.equal((await faultOf(provider.listInstances("c1", background()))).code, "permission_denied");
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it("are asked for once, not for each request", async () => {
    const { tenant } = world.endpoint;
    const answer = tenant.answer.bind(tenant);
    let tokens = 0;
    tenant.answer = (request, base) => {
      if (request.path.includes("/oauth2/v2.0/token")) tokens++;
      return answer(request, base);
    };
    const provider = await world.provider();
    for (let i = 0; i < 3; i++) await provider.createInstance(world.spec(), background());
    // The first requests go out together, before there is one.
    assert.ok(tokens >= 1 && tokens <= 2, String(tokens));
  });
});
