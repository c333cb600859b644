import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import { AwsWorld, type Credentials } from "../../test/clouds/ec2/index.ts";

const ROLE: Credentials = {
  accessKeyId: "ASIAROLEROLEROLEROLE",
  secretAccessKey: "role/secret",
  sessionToken: "session-token",
};
const EXPIRES = new Date(Date.now() + 3_600_000).toISOString();
const KEYS = { AccessKeyId: ROLE.accessKeyId, SecretAccessKey: ROLE.secretAccessKey, Expiration: EXPIRES };

/** What gives credentials to a pod or a machine: all of it in one server. */
function answer(request: IncomingMessage, body: string): string | undefined {
  const { url = "", method, headers } = request;
  if (url === "/pod-identity" && headers.authorization === "pod-token")
    return JSON.stringify({ ...KEYS, Token: ROLE.sessionToken });
  if (url === "/latest/api/token" && method === "PUT") return "imds-token";
  const imds = "/latest/meta-data/iam/security-credentials/";
  if (headers["x-aws-ec2-metadata-token"] === "imds-token") {
    if (url === imds) return "node-role";
    if (url === `${imds}node-role`)
      return JSON.stringify({ ...KEYS, Code: "Success", Type: "AWS-HMAC", Token: ROLE.sessionToken });
  }
  const form = new URLSearchParams(body);
  if (form.get("Action") === "AssumeRoleWithWebIdentity" && form.get("WebIdentityToken") === "web-token") {
    const { AccessKeyId, SecretAccessKey, Expiration } = KEYS;
    const keys = { AccessKeyId, SecretAccessKey, SessionToken: ROLE.sessionToken, Expiration };
    const xml = Object.entries(keys).map(([k, v]) => `<${k}>${v}</${k}>`);
    const result = `<AssumeRoleWithWebIdentityResult><Credentials>${xml.join("")}</Credentials></AssumeRoleWithWebIdentityResult>`;
    return `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">${result}</AssumeRoleWithWebIdentityResponse>`;
  }
  return undefined;
}

describe("credentials of the adaptor", () => {
  let server: Server;
  let url: string;
  let dir: string;
  const saved = { ...process.env };
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "credentials-"));
    await writeFile(join(dir, "web-token"), "web-token");
    await writeFile(join(dir, "pod-token"), "pod-token");
    server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const text = answer(request, Buffer.concat(chunks).toString());
        response.writeHead(text === undefined ? 404 : 200, { "x-aws-ec2-metadata-token-ttl-seconds": "21600" });
        response.end(text);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await rm(dir, { recursive: true });
  });
  afterEach(() => {
    for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name];
    Object.assign(process.env, saved);
  });

  const chains: Readonly<Record<string, () => Record<string, string>>> = {
    "EKS Pod Identity": () => ({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/pod-identity`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: join(dir, "pod-token"),
    }),
    "IAM roles for service accounts": () => ({
      AWS_ROLE_ARN: "arn:aws:iam::111122223333:role/pods",
      AWS_WEB_IDENTITY_TOKEN_FILE: join(dir, "web-token"),
      AWS_ENDPOINT_URL_STS: url,
    }),
    "the role of the machine (IMDSv2)": () => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: url }),
  };
  for (const [name, environment] of Object.entries(chains)) {
    it(`come from ${name}`, async () => {
      await using world = await AwsWorld.open();
      for (const key of Object.keys(process.env)) if (key.startsWith("AWS_")) delete process.env[key];
      Object.assign(process.env, environment(), {
        ...{ AWS_CONFIG_FILE: join(dir, "none"), AWS_SHARED_CREDENTIALS_FILE: join(dir, "none") },
      });
      world.endpoint.credentials.splice(0, world.endpoint.credentials.length, ROLE);
      const provider = await world.provider();
      await provider.createInstance(world.spec(), background());
      assert.deepEqual([...new Set(world.endpoint.requests.map((r) => r.accessKeyId))], [ROLE.accessKeyId]);
    });
  }
});
