import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { afterEach, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import { background } from "../../src/base/call.ts";
import { type InstanceId, parseInstanceId } from "../../src/base/ids.ts";
import { AwsWorld } from "../../test/clouds/ec2/index.ts";
import { newest } from "./console-reader.ts";

let world: AwsWorld;
beforeEach(async () => {
  world = await AwsWorld.open();
});
afterEach(() => world[Symbol.asyncDispose]());

describe("listInstances", () => {
  it("is complete over many pages, empty ones included", async () => {
    Object.assign(world.endpoint.account.knobs, { maxPage: 2, emptyFirstPage: true });
    const provider = await world.provider();
    const made: InstanceId[] = [];
    for (let i = 0; i < 7; i++) made.push((await provider.createInstance(world.spec(), background())).id);
    const listed = await (await world.provider()).listInstances("c1", background());
    assert.deepEqual(listed.map((i) => i.id).sort(), made.sort());
  });

  it("throws when a later page cannot be had", async () => {
    world.endpoint.account.knobs.maxPage = 2;
    const provider = await world.provider({ attempts: 2 });
    for (let i = 0; i < 5; i++) await provider.createInstance(world.spec(), background());
    const error = { code: "RequestLimitExceeded", message: "Request limit exceeded.", status: 503, retryAfter: "0" };
    world.endpoint.inject({ action: "DescribeInstances", skip: 1, times: 2, error });
    await assert.rejects(provider.listInstances("c1", background()), { code: "unavailable" });
    assert.equal((await provider.listInstances("c1", background())).length, 5);
  });

  it("takes a cluster's name as it is", async () => {
    const provider = await world.provider();
    const tags = { ...world.spec().tags, cluster: "prod-1" };
    await provider.createInstance(world.spec({ tags }), background());
    for (const cluster of ["*", "prod-?", "prod-*", "prod"]) {
      assert.deepEqual(await provider.listInstances(cluster, background()), [], cluster);
    }
    assert.equal((await provider.listInstances("prod-1", background())).length, 1);
  });

  it("shows what was just made although EC2's listing does not, and not what was just ended", async () => {
    world.endpoint.account.knobs.hiddenDescribes = 3;
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    assert.deepEqual(
      (await provider.listInstances("c1", background())).map((i) => i.id),
      [id],
    );
    assert.deepEqual(await provider.listInstances("c2", background()), []);
  });
});

describe("getInstance", () => {
  it("asks for many with one request", async () => {
    const provider = await world.provider();
    const made: InstanceId[] = [];
    for (let i = 0; i < 20; i++) made.push((await provider.createInstance(world.spec(), background())).id);
    world.takeActions();
    const seen = await Promise.all(made.map((id) => provider.getInstance(id, background())));
    assert.deepEqual(
      seen.map((i) => i?.id),
      made,
    );
    assert.deepEqual(world.takeActions(), ["DescribeInstances"]);
  });

  it("is not misled by one that is not there among many", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    const missing = parseInstanceId("i-0123456789abcdef0");
    const [one, two] = await Promise.all([
      provider.getInstance(id, background()),
      provider.getInstance(missing, background()),
    ]);
    assert.equal(one?.id, id);
    assert.equal(two, undefined);
  });

  it("takes a new instance that EC2 does not show for pending, an old one for gone", async () => {
    world.endpoint.account.knobs.hiddenDescribes = 1000;
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    assert.equal((await provider.getInstance(id, background()))?.id, id);
    world.clock.advance(61_000);
    assert.equal(await provider.getInstance(id, background()), undefined);
  });

  it("gives up when its call ends, and leaves the others waiting", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    world.endpoint.inject({ action: "DescribeInstances", delayMs: 100 });
    const [given, other] = await Promise.allSettled([
      provider.getInstance(id, { signal: AbortSignal.timeout(30) }),
      provider.getInstance(id, background()),
    ]);
    assert.equal(given.status, "rejected");
    assert.equal(other.status === "fulfilled" ? other.value?.id : undefined, id);
  });

  for (const [code, state] of [
    ["Server.SpotInstanceTermination", "failed"],
    ["Client.InstanceInitiatedShutdown", "failed"],
    ["Server.InternalError", "failed"],
    ["Client.UserInitiatedShutdown", undefined],
  ] as const) {
    it(`takes an end for ${code} for ${state ?? "gone"}`, async () => {
      const provider = await world.provider();
      const { id } = await provider.createInstance(world.spec(), background());
      world.endpoint.account.end(id, code, `${code}: it ended`);
      const seen = await provider.getInstance(id, background());
      assert.equal(seen?.state, state);
      if (seen !== undefined) assert.equal(seen.reason, `it is terminated: ${code}: it ended`);
      assert.deepEqual((await (await world.provider()).listInstances("c1", background())).length, 0);
      assert.equal(await provider.deleteInstance(id, background()), "gone");
    });
  }

  it("takes a stopped one for failed: nobody starts it again", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    Object.assign(world.endpoint.account.instances.get(id) ?? {}, { stopped: true });
    assert.equal((await provider.getInstance(id, background()))?.state, "failed");
  });

  it("waits for the public address where nodes use that one", async () => {
    world.endpoint.account.knobs.pendingMs = 5000;
    const provider = await world.provider({ publicIp: true });
    const made = await provider.createInstance(world.spec(), background());
    assert.deepEqual(made.addresses, []);
    assert.equal(made.state, "pending");
    world.clock.advance(6000);
    const seen = await provider.getInstance(made.id, background());
    assert.equal(seen?.addresses.length, 2);
    assert.match(seen?.addresses[0] ?? "", /^203\./);
  });
});

describe("deleteInstance", () => {
  it("does not take a new instance that EC2 does not know yet for gone", async () => {
    world.endpoint.account.knobs.hiddenDescribes = 1;
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    assert.equal(await provider.deleteInstance(id, background()), "deleting");
    assert.equal(await provider.deleteInstance(id, background()), "gone");
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });

  it("takes one that EC2 has forgotten for gone", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    await provider.deleteInstance(id, background());
    world.clock.advance(2 * 3_600_000);
    assert.equal(await provider.deleteInstance(id, background()), "gone");
  });

  it("says why an instance that is protected stays", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    Object.assign(world.endpoint.account.instances.get(id) ?? {}, { protectedFromTermination: true });
    await assert.rejects(provider.deleteInstance(id, background()), (e: { code: string; fullMessage: string }) => {
      assert.equal(e.code, "failed_precondition");
      assert.match(e.fullMessage, /disableApiTermination/);
      return true;
    });
  });
});

describe("consoleOutput", () => {
  it("is empty before anything was written, and asks EC2 every two seconds at most", async () => {
    const provider = await world.provider();
    const { id } = await provider.createInstance(world.spec(), background());
    world.takeActions();
    for (let i = 0; i < 10; i++) assert.equal(await provider.consoleOutput(id, 100, background()), "");
    assert.deepEqual(world.takeActions(), ["GetConsoleOutput"]);
    Object.assign(world.endpoint.account.instances.get(id) ?? {}, { console: `${"x".repeat(200)}guest key` });
    world.clock.advance(2000);
    assert.equal(await provider.consoleOutput(id, 9, background()), "guest key");
  });

  it("cannot be read of an instance that is not there", async () => {
    const provider = await world.provider();
    assert.equal(await provider.consoleOutput(parseInstanceId("i-0123456789abcdef0"), 9, background()), undefined);
  });

  it("is cut between characters and never longer than asked for", () => {
    assert.equal(newest(Buffer.from("aéb"), 2), "b");
    assert.equal(newest(Buffer.from("abc"), 10), "abc");
    for (let max = 0; max < 12; max++) {
      assert.ok(Buffer.byteLength(newest(Buffer.from([0xff, 0xfe, 0x41, 0xc3, 0xa9, 0x80, 0x42]), max)) <= max);
    }
  });
});

describe("loading", () => {
  it("takes the SDK only when the provider is opened", async () => {
    const script = `
      import { registerHooks } from "node:module";
      const seen = [];
      registerHooks({ resolve: (s, c, next) => { if (s.startsWith("@aws-sdk/")) seen.push(s); return next(s, c); } });
      const { awsProvider } = await import(${JSON.stringify(import.meta.resolve("./index.ts"))});
      console.log(seen.length);
      await awsProvider.create({ region: "eu-west-1", imageId: "ami-00000000", subnets: ["subnet-00000000"], tags: {},
        endpoint: "http://127.0.0.1:9", instanceTypes: [],
        dataVolumes: [], externalSubnets: [], externalSecurityGroups: [] }, { log: undefined, now: () => new Date() });
      console.log(seen.includes("@aws-sdk/client-ec2"));`;
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]);
    assert.equal(stdout, "0\ntrue\n");
  });
});
