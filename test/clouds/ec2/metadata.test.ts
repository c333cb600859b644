import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";
import { runInstances } from "./actions/run-instances.ts";
import { Ec2Service, ManualClock, MetadataService, TEST_CREDENTIALS } from "./index.ts";
import { Params } from "./query.ts";

let clock: ManualClock;
let service: Ec2Service;
let metadata: MetadataService;

async function launch(parameters: Record<string, string> = {}): Promise<string> {
  const form = new URLSearchParams({
    ...{ ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "m6a.large", MinCount: "1", MaxCount: "1" },
    ...parameters,
  });
  await runInstances({ account: service.account, params: Params.parse(form), endDryRun: () => undefined });
  return [...service.account.instances.keys()].at(-1) ?? "";
}

function ask(machineId: string, path: string, headers: Record<string, string> = {}, method = "GET") {
  const from = { source: "10.0.0.11", destination: "169.254.169.254", machineId, body: Buffer.alloc(0) };
  return metadata.answer({ ...from, method, path, headers });
}

function token(machineId: string, ttl = "60"): string {
  const reply = ask(machineId, "/latest/api/token", { "x-aws-ec2-metadata-token-ttl-seconds": ttl }, "PUT");
  return String(reply?.body);
}
const withToken = (value: string) => ({ "x-aws-ec2-metadata-token": value });
const V2 = { "MetadataOptions.HttpTokens": "required" };

beforeEach(() => {
  clock = new ManualClock();
  service = new Ec2Service({ clock, credentials: [TEST_CREDENTIALS] });
  metadata = new MetadataService(service.account);
});

describe("the instance metadata service", () => {
  it("asks for a token where IMDSv2 is required, and takes each instance's own, until it ends", async () => {
    const [one, other] = [await launch(V2), await launch(V2)];
    assert.equal(ask(one, "/latest/meta-data/instance-id")?.status, 401);
    assert.equal(ask(one, "/latest/meta-data/instance-id", withToken("invented"))?.status, 401);
    const mine = token(one, "60");
    assert.equal(String(ask(one, "/latest/meta-data/instance-id", withToken(mine))?.body), one);
    assert.equal(ask(other, "/latest/meta-data/instance-id", withToken(mine))?.status, 401);
    clock.advance(60_000);
    assert.equal(ask(one, "/latest/meta-data/instance-id", withToken(mine))?.status, 401);
  });

  it("gives tokens for a PUT with a lifetime only, and none to proxies", async () => {
    const id = await launch(V2);
    const ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    const put = (headers: Record<string, string>) => ask(id, "/latest/api/token", headers, "PUT")?.status;
    assert.equal(put({ [ttl]: "21600" }), 200);
    assert.deepEqual(
      [put({}), put({ [ttl]: "0" }), put({ [ttl]: "21601" }), put({ [ttl]: "x" })],
      [400, 400, 400, 400],
    );
    assert.equal(put({ [ttl]: "60", "x-forwarded-for": "10.0.0.1" }), 403);
    assert.equal(ask(id, "/latest/api/token")?.status, 405);
    assert.equal(ask(id, "/latest/meta-data/", {}, "POST")?.status, 405);
  });

  it("answers version 1 where that is allowed, and nothing where it is switched off", async () => {
    const v1 = await launch();
    assert.equal(ask(v1, "/latest/meta-data/instance-type")?.status, 200);
    const off = await launch({ "MetadataOptions.HttpEndpoint": "disabled" });
    assert.equal(ask(off, "/latest/meta-data/instance-type")?.status, 403);
    assert.equal(ask("i-0123456789abcdef0", "/latest/meta-data/"), undefined, "no instance, no service");
  });

  it("has the user-data as they were given, or none", async () => {
    const data = Buffer.from([0, 255, 10, 13]);
    const id = await launch({ ...V2, UserData: data.toString("base64") });
    assert.deepEqual(ask(id, "/latest/user-data", withToken(token(id)))?.body, data);
    const bare = await launch(V2);
    assert.equal(ask(bare, "/latest/user-data", withToken(token(bare)))?.status, 404);
  });

  it("has lists of what there is, and tags only when they were asked for", async () => {
    const tags = {
      "TagSpecification.1.ResourceType": "instance",
      "TagSpecification.1.Tag.1.Key": "team",
      "TagSpecification.1.Tag.1.Value": "blue",
    };
    const id = await launch(tags);
    const read = (path: string) => String(ask(id, path)?.body);
    assert.match(read("/latest/meta-data/"), /^ami-id\n.*\nnetwork\/\nplacement\/\n/s);
    assert.equal(read("/latest/meta-data/placement/availability-zone"), "eu-west-1a");
    const mac = read("/latest/meta-data/mac");
    assert.equal(read("/latest/meta-data/network/interfaces/macs/"), `${mac}/`);
    assert.equal(ask(id, "/latest/meta-data/tags/instance/")?.status, 404);
    const open = await launch({ ...tags, "MetadataOptions.InstanceMetadataTags": "enabled" });
    assert.equal(String(ask(open, "/latest/meta-data/tags/instance/team")?.body), "blue");
    assert.equal(JSON.parse(read("/latest/dynamic/instance-identity/document")).instanceId, id);
    assert.equal(ask(id, "/latest/meta-data/nothing")?.status, 404);
  });
});
