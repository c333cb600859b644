import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { Fault } from "../../src/base/fault.ts";
import { AwsWorld, WORKING_CONFIG } from "../../test/clouds/ec2/index.ts";

let world: AwsWorld;
beforeEach(async () => {
  world = await AwsWorld.open();
});
afterEach(async () => {
  const made = [...world.endpoint.account.instances.values()].map((i) => i.tags.get("kata-remote:create-operation"));
  await world[Symbol.asyncDispose]();
  // Whatever went wrong: never two instances of one operation.
  assert.equal(new Set(made).size, made.length);
});

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  let fault: unknown;
  await assert.rejects(work, (e) => {
    fault = e;
    return true;
  });
  return fault as Fault;
}
const instances = () => [...world.endpoint.account.instances.values()];
const zones = () => instances().map((i) => i.subnet.zone);
/** Another operator's order of preference: the second zone comes first. */
const OTHER_ORDER = [WORKING_CONFIG.subnets[1], WORKING_CONFIG.subnets[0]];
const tokens = () =>
  world.endpoint.requests.filter((r) => r.action === "RunInstances").map((r) => r.parameters.get("ClientToken"));

describe("an instance that is made", () => {
  it("is a confidential one, with tags on all its parts, IMDSv2, an encrypted disk and no public address", async () => {
    const provider = await world.provider({ tags: { team: "blue" }, rootDiskGiB: 20 });
    const spec = world.spec();
    await provider.createInstance(spec, background());
    const [made] = instances();
    assert.ok(made?.sevSnp && !made.spot);
    const tags = {
      ...{ Name: spec.name, team: "blue", "kata-remote:cluster": "c1", "kata-remote:owner": "kata-remote" },
      "kata-remote:create-operation": spec.tags.createOperation,
      "kata-remote:created": spec.tags.created,
    };
    for (const part of [made, made.networkInterface, ...made.volumes])
      assert.deepEqual({ ...Object.fromEntries(part.tags) }, tags);
    assert.deepEqual(made.metadata, { tokens: "required", hopLimit: 1, endpoint: "enabled", tags: "disabled" });
    assert.deepEqual(
      made.volumes.map((v) => [v.encrypted, v.sizeGiB, v.type]),
      [[true, 20, "gp3"]],
    );
    assert.equal(made.networkInterface.publicAddress, undefined);
    assert.deepEqual(made.userData, Buffer.from(spec.userData));
    assert.equal(made.keyName, undefined);
    const run = world.endpoint.requests.find((r) => r.action === "RunInstances");
    assert.equal(run?.parameters.get("InstanceInitiatedShutdownBehavior"), "terminate");
  });

  it("takes all its disks with it, also one that the image would leave behind", async () => {
    const provider = await world.provider({ imageId: "ami-0a1b2c3d4e5f60006" });
    const { id } = await provider.createInstance(world.spec(), background());
    assert.equal(world.endpoint.account.leftovers().length, 4);
    await provider.deleteInstance(id, background());
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });

  it("costs one request once types, image and subnets are known, and its end costs one", async () => {
    const provider = await world.provider();
    await provider.createInstance(world.spec(), background());
    assert.deepEqual(world.takeActions().sort(), [
      "DescribeImages",
      "DescribeInstanceTypes",
      "DescribeSubnets",
      "RunInstances",
    ]);
    const { id, addresses } = await provider.createInstance(world.spec(), background());
    assert.equal(addresses.length, 1); // known from the launch: nobody has to ask for it
    assert.deepEqual(world.takeActions(), ["RunInstances"]);
    assert.equal(await provider.deleteInstance(id, background()), "gone");
    assert.deepEqual(world.takeActions(), ["TerminateInstances"]);
  });

  it("gets the newest image of a name", async () => {
    const provider = await world.provider({ imageId: undefined, imageName: "kata-remote-podvm-*" });
    await provider.createInstance(world.spec(), background());
    assert.deepEqual(
      instances().map((i) => i.imageId),
      ["ami-0a1b2c3d4e5f60002"],
    );
  });
});

describe("a create whose answer is lost", () => {
  it("is repeated with the same token and gets the same instance", async () => {
    const provider = await world.provider();
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const { id } = await provider.createInstance(world.spec(), background());
    assert.deepEqual(
      instances().map((i) => i.id),
      [id],
    );
    const sent = tokens();
    assert.equal(sent.length, 2);
    assert.equal(new Set(sent).size, 1);
  });

  it("ends at the request's time limit and finds the instance the next time", async () => {
    const provider = await world.provider({ requestTimeoutMs: 150, attempts: 1 });
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, delayMs: 600 });
    const spec = world.spec();
    const fault = await faultOf(provider.createInstance(spec, background()));
    assert.equal(fault.code, "unavailable");
    assert.ok(fault.retryable);
    const { id } = await provider.createInstance(spec, background());
    assert.deepEqual(
      instances().map((i) => i.id),
      [id],
    );
  });

  it("is found by its tag after a restart, without a second launch", async () => {
    const first = await world.provider({ attempts: 1 });
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const spec = world.spec();
    await faultOf(first.createInstance(spec, background()));
    world.clock.advance(1);
    const second = await world.provider();
    world.takeActions();
    const { id } = await second.createInstance(spec, background());
    assert.deepEqual(
      instances().map((i) => i.id),
      [id],
    );
    assert.deepEqual(world.takeActions(), ["DescribeInstances"]);
  });

  it("is found although it went to another place than a new process would choose", async () => {
    const first = await world.provider({ subnets: OTHER_ORDER, attempts: 1 });
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const spec = world.spec();
    await faultOf(first.createInstance(spec, background()));
    world.clock.advance(1);
    const second = await world.provider();
    await second.createInstance(spec, background());
    assert.deepEqual(zones(), ["eu-west-1b"]);
  });

  it("is searched for before anything is launched, however often the search fails", async () => {
    const first = await world.provider({ subnets: OTHER_ORDER, attempts: 1 });
    const spec = world.spec();
    await first.createInstance(spec, background());
    world.clock.advance(1);
    const second = await world.provider({ attempts: 1 });
    world.endpoint.inject({ action: "DescribeInstances", times: 2, drop: true });
    for (let i = 0; i < 2; i++)
      assert.equal((await faultOf(second.createInstance(spec, background()))).code, "unavailable");
    await second.createInstance(spec, background());
    assert.deepEqual(zones(), ["eu-west-1b"]);
  });

  it("is searched for when another process may have had the operation meanwhile", async () => {
    const first = await world.provider({ attempts: 1 });
    world.endpoint.inject({ action: "RunInstances", drop: true });
    const spec = world.spec();
    await faultOf(first.createInstance(spec, background())); // nothing was made
    world.clock.advance(60_000);
    await (await world.provider({ subnets: OTHER_ORDER })).createInstance(spec, background());
    await first.createInstance(spec, background());
    assert.deepEqual(zones(), ["eu-west-1b"]);
  });

  it("gets the same instance when the listing does not show it yet", async () => {
    const provider = await world.provider({ attempts: 1 });
    world.endpoint.account.knobs.hiddenDescribes = 100;
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const spec = world.spec();
    await faultOf(provider.createInstance(spec, background()));
    const { id } = await provider.createInstance(spec, background());
    assert.deepEqual(
      instances().map((i) => i.id),
      [id],
    );
  });

  it("is found by its tag when the image has changed meanwhile", async () => {
    const provider = await world.provider({ imageId: undefined, imageName: "kata-remote-podvm-*", attempts: 1 });
    await provider.createInstance(world.spec(), background());
    world.clock.advance(296_000); // the image is looked up every five minutes
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const spec = world.spec();
    await faultOf(provider.createInstance(spec, background()));
    const [image] = world.endpoint.account.images;
    assert.ok(image !== undefined);
    world.endpoint.account.images.push({ ...image, id: "ami-0a1b2c3d4e5f60099", created: "2026-09-01T00:00:00.000Z" });
    world.clock.advance(8000);
    const { id } = await provider.createInstance(spec, background());
    assert.equal(instances().length, 2);
    assert.equal(instances()[1]?.id, id);
    assert.ok(world.endpoint.requests.some((r) => r.outcome === "IdempotentParameterMismatch"));
  });

  for (const [how, restarted] of [
    ["by the same process", false],
    ["by a new one", true],
  ] as const) {
    it(`makes no second instance when the first has ended, ${how}`, async () => {
      const first = await world.provider({ attempts: 1 });
      world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
      const spec = world.spec();
      await faultOf(first.createInstance(spec, background()));
      const [made] = instances();
      world.endpoint.account.end(made?.id ?? "", "Client.UserInitiatedShutdown", "User initiated shutdown");
      world.clock.advance(1);
      const provider = restarted ? await world.provider() : first;
      const fault = await faultOf(provider.createInstance(spec, background()));
      assert.equal(fault.code, "failed_precondition");
      assert.match(fault.message, /has ended/);
      assert.equal(instances().length, 1);
    });
  }
});

describe("when there is no capacity", () => {
  it("asks at one place only, and says which kind of shortage it is: what comes next is the adaptor's decision", async () => {
    const provider = await world.provider();
    world.endpoint.account.knobs.short.add("*/eu-west-1a");
    for (let n = 0; n < 2; n++) {
      const fault = await faultOf(provider.createInstance(world.spec(), background()));
      assert.equal(fault.code, "resource_exhausted");
      assert.equal(fault.context.kind, "capacity");
      assert.ok(fault.retryable);
    }
    assert.equal(world.endpoint.count("RunInstances"), 2); // EC2 says it with status 500, which is not repeated
    assert.deepEqual(instances(), []);
  });
});

describe("when something else is short", () => {
  it("says a quota with its numbers, after one request", async () => {
    world.endpoint.account.knobs.vcpuQuota.set("Standard/on-demand", 2);
    const provider = await world.provider();
    await provider.createInstance(world.spec(), background());
    world.takeActions();
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.equal(fault.code, "resource_exhausted");
    assert.ok(!fault.retryable);
    assert.match(
      fault.message,
      /quota of 2 vCPUs for on-demand Standard instances in eu-west-1 is used up, c6a\.large needs 2 more/,
    );
    assert.deepEqual(world.takeActions(), ["RunInstances"]);
  });

  it("waits and repeats when it is throttled", async () => {
    const provider = await world.provider();
    const error = { code: "RequestLimitExceeded", message: "Request limit exceeded.", status: 503, retryAfter: "0" };
    world.endpoint.inject({ action: "RunInstances", times: 2, error });
    await provider.createInstance(world.spec(), background());
    assert.equal(world.endpoint.count("RunInstances"), 3);
    assert.equal(new Set(tokens()).size, 1);
  });

  it("says after how long to come again when throttling does not end, and launches nothing elsewhere", async () => {
    world.endpoint.account.knobs.buckets.set("RunInstances", { capacity: 0, refillPerSecond: 0 });
    const provider = await world.provider({ attempts: 2 });
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.equal(fault.code, "unavailable");
    assert.equal(fault.context.kind, "throttled");
    assert.equal(fault.context.retryAfterMs, 1000);
    assert.equal(world.endpoint.count("RunInstances"), 2);
  });
});

describe("what cannot be", () => {
  it("is user-data above 16 KiB: refused before anything is asked", async () => {
    const provider = await world.provider();
    const fault = await faultOf(provider.createInstance(world.spec({ userData: Buffer.alloc(16_385) }), background()));
    assert.equal(fault.code, "invalid_argument");
    assert.match(fault.message, /16385 bytes, EC2 takes at most 16384/);
    assert.equal(world.endpoint.count("RunInstances"), 0);
    await provider.createInstance(world.spec({ userData: Buffer.alloc(16_384) }), background());
  });

  it("is an image that pods may not choose", async () => {
    const provider = await world.provider({ images: ["ami-0a1b2c3d4e5f60002"] });
    const fault = await faultOf(provider.createInstance(world.spec({ image: "ami-0a1b2c3d4e5f60006" }), background()));
    assert.equal(fault.code, "invalid_argument");
    assert.match(fault.message, /ami-0a1b2c3d4e5f60001, ami-0a1b2c3d4e5f60002/);
    await provider.createInstance(world.spec({ image: "ami-0a1b2c3d4e5f60002" }), background());
    assert.deepEqual(
      instances().map((i) => i.imageId),
      ["ami-0a1b2c3d4e5f60002"],
    );
  });

  for (const [what, imageId, message] of [
    ["an image without UEFI", "ami-0a1b2c3d4e5f60004", /SEV-SNP needs UEFI/],
    ["an image for another processor", "ami-0a1b2c3d4e5f60003", /is for arm64/],
    ["an image that is not ready", "ami-0a1b2c3d4e5f60005", /not available/],
    ["an image that is not there", "ami-0a1b2c3d4e5f60077", /InvalidAMIID\.NotFound/],
  ] as const) {
    it(`is ${what}: said with its name`, async () => {
      const provider = await world.provider({ imageId });
      const fault = await faultOf(provider.createInstance(world.spec(), background()));
      assert.equal(fault.code, "failed_precondition");
      assert.match(fault.fullMessage, message);
      assert.match(fault.fullMessage, new RegExp(imageId));
    });
  }

  it("is a call without credentials that EC2 knows", async () => {
    const provider = await world.provider();
    world.endpoint.credentials.length = 0;
    const fault = await faultOf(provider.createInstance(world.spec(), background()));
    assert.equal(fault.code, "permission_denied");
  });

  for (const [config, message] of [
    [{ arch: "arm64" }, /sev-snp.+x86_64/],
    [{ imageId: undefined }, /imageId or imageName is missing/],
    [{ subnets: [] }, /subnets is empty/],
    [{ kmsKeyId: "k", encryptRootDisk: false }, /kmsKeyId needs encryptRootDisk/],
    [{ tenancy: "host", market: "spot" }, /on-demand/],
    [{ spotMaxPrice: "0.1" }, /spotMaxPrice/],
    [{ rootDiskType: "gp2", rootDiskThroughputMiBps: 200 }, /gp3/],
    [{ tags: { "kata-remote:cluster": "x" } }, /tags cannot set kata-remote:cluster/],
    [{ launchTemplate: {} }, /either id or name/],
    [{ region: "Frankfurt" }, /region/],
    [{ subnet: "subnet-0a1b2c3d4e5f6000a" }, /unknown key "subnet"/],
  ] as const) {
    it(`is the configuration ${JSON.stringify(config)}`, async () => {
      const fault = await faultOf(world.provider(config));
      assert.equal(fault.code, "invalid_argument");
      assert.match(fault.message, message);
    });
  }
});
