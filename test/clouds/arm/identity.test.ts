import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import {
  ClientSecretCredential,
  ManagedIdentityCredential,
  type TokenCredential,
  WorkloadIdentityCredential,
} from "@azure/identity";
import { ArmEndpoint, trustInThisProcess } from "./index.ts";

const SCOPE = "https://management.azure.com/.default";

describe("Entra of the ARM endpoint, to unmodified @azure/identity", () => {
  let endpoint: ArmEndpoint;
  let folder: string;
  let authority: { readonly authorityHost: string; readonly disableInstanceDiscovery: boolean };
  before(async () => {
    endpoint = await ArmEndpoint.start();
    trustInThisProcess(endpoint.certificates.ca);
    authority = { authorityHost: endpoint.url, disableInstanceDiscovery: true };
    folder = await mkdtemp(join(tmpdir(), "entra-"));
    process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST = endpoint.metadataUrl;
  });
  after(async () => {
    delete process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST;
    await endpoint[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** Whether Resource Manager takes the token that a credential gets. */
  async function use(credential: TokenCredential, scope = SCOPE): Promise<string> {
    const token = await credential.getToken(scope);
    const reply = await endpoint.answer({
      ...{ method: "GET", path: `${endpoint.cloud.groupId("pods")}?api-version=2021-04-01`, body: Buffer.alloc(0) },
      headers: { authorization: `Bearer ${token?.token}` },
    });
    return String(reply?.status);
  }
  function secret(change: { tenant?: string; client?: string; secret?: string } = {}): ClientSecretCredential {
    const { application, id } = endpoint.tenant;
    const { tenant = id, client = application.clientId } = change;
    return new ClientSecretCredential(tenant, client, change.secret ?? application.secret, authority);
  }
  async function federated(token: string): Promise<WorkloadIdentityCredential> {
    const tokenFilePath = join(folder, "token");
    await writeFile(tokenFilePath, token);
    const { application, id } = endpoint.tenant;
    return new WorkloadIdentityCredential({
      ...{ tenantId: id, clientId: application.clientId, tokenFilePath, ...authority },
    });
  }

  it("gives tokens for a client's secret, and says what is wrong with it", async () => {
    assert.equal(await use(secret()), "200");
    assert.equal(await use(secret(), "https://storage.azure.com/.default"), "401");
    await assert.rejects(use(secret({ secret: "wrong" })), /AADSTS7000215/);
    await assert.rejects(use(secret({ client: "33333333-0000-0000-0000-000000000000" })), /AADSTS700016/);
    await assert.rejects(use(secret({ tenant: "33333333-0000-0000-0000-000000000000" })), /endpoints_resolution_error/);
    await assert.rejects(use(secret(), "https://management.azure.com/user_impersonation"), /AADSTS1002012/);
  });

  it("gives tokens for a service account's token, if it is the one that was agreed on", async () => {
    const { tenant } = endpoint;
    assert.equal(await use(await federated(tenant.serviceAccountToken())), "200");
    const refused: readonly (readonly [object, RegExp])[] = [
      [{ sub: "system:serviceaccount:default:default" }, /AADSTS700213/],
      [{ aud: "https://kubernetes.default.svc" }, /AADSTS700212/],
      [{ exp: 1 }, /AADSTS700024/],
    ];
    for (const [change, message] of refused) {
      await assert.rejects(use(await federated(tenant.serviceAccountToken(change))), message);
    }
  });

  it("gives tokens of a managed identity through the metadata service", async () => {
    assert.equal(await use(new ManagedIdentityCredential()), "200");
    const other = new ManagedIdentityCredential({ clientId: "44444444-0000-0000-0000-000000000000" });
    await assert.rejects(use(other));
  });

  it("has groups made and removed with such a token, and one that stays is seen by the sweep", async () => {
    const token = await secret().getToken(SCOPE);
    const ask = async (method: string): Promise<number | undefined> => {
      const reply = await endpoint.answer({
        ...{ method, path: `${endpoint.cloud.groupId("mine")}?api-version=2021-04-01` },
        headers: { authorization: `Bearer ${token?.token}`, "content-type": "application/json" },
        body: Buffer.from(method === "PUT" ? JSON.stringify({ location: "westeurope" }) : ""),
      });
      return reply?.status;
    };
    assert.deepEqual([await ask("PUT"), await ask("PUT")], [201, 200]);
    assert.deepEqual(endpoint.cloud.leftovers(), [{ kind: "resourceGroups", id: endpoint.cloud.groupId("mine") }]);
    assert.deepEqual([await ask("DELETE"), await ask("GET")], [200, 404]);
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("describes itself to clients that look before they trust", async () => {
    const ask = async (path: string): Promise<{ readonly status: number; readonly body: Record<string, unknown> }> => {
      const headers = { host: "login.test" };
      const reply = await endpoint.answer({ method: "GET", path, headers, body: Buffer.alloc(0) });
      return { status: reply?.status ?? 0, body: JSON.parse(String(reply?.body)) as Record<string, unknown> };
    };
    const where = "authorization_endpoint=https://login.test/x/oauth2/v2.0/authorize";
    const found = await ask(`/common/discovery/instance?api-version=1.1&${where}`);
    assert.match(String(found.body.tenant_discovery_endpoint), /^https:\/\/login\.test\/.*openid-configuration$/);
    assert.equal((await ask("/common/discovery/instance")).status, 400);
    const { body } = await ask(`/${endpoint.tenant.id}/v2.0/.well-known/openid-configuration`);
    assert.equal(body.token_endpoint, `https://login.test/${endpoint.tenant.id}/oauth2/v2.0/token`);
    const keys = (await ask(`/${endpoint.tenant.id}/discovery/v2.0/keys`)).body.keys as unknown[];
    assert.equal(keys.length, 1);
  });
});
