import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { CreateVolumeCommand, EC2Client } from "@aws-sdk/client-ec2";
import { background } from "../../src/base/call.ts";
import type { Instance, Provider, VolumeAttachment } from "../../src/provider/index.ts";
import { AwsWorld, installBoto, TEST_CREDENTIALS } from "../../test/clouds/ec2/index.ts";

const boto = await installBoto();
const model = "missing" in boto ? undefined : boto.model;

describe("volumes that outlive instances", () => {
  let world: AwsWorld;
  let client: EC2Client;
  beforeEach(async () => {
    world = await AwsWorld.open(model);
    const { account, url } = world.endpoint;
    client = new EC2Client({ region: account.region, endpoint: url, credentials: TEST_CREDENTIALS });
  });
  afterEach(async () => {
    client.destroy();
    assert.deepEqual(world.endpoint.replyProblems, []);
    await world[Symbol.asyncDispose]();
  });

  /** @param subnet the volume is in its zone */
  async function makeVolume(subnet: number): Promise<string> {
    const zone = world.endpoint.account.subnets[subnet]?.zone;
    const made = await client.send(new CreateVolumeCommand({ AvailabilityZone: zone, Size: 1, VolumeType: "gp3" }));
    return made.VolumeId ?? "";
  }

  async function launch(provider: Provider, volumes: readonly string[]): Promise<Instance> {
    const instance = await provider.createInstance(world.spec({ volumes }), background());
    world.clock.advance(60_000);
    return instance;
  }

  const attachment = (provider: Provider): VolumeAttachment => {
    assert.ok(provider.volumes !== undefined);
    return provider.volumes;
  };
  const stored = (id: string) => world.endpoint.account.instances.get(id);

  it("are attached to an instance that is made in their zone; again is the same; its end leaves them", async () => {
    const provider = await world.provider({ dataVolumes: [{ sizeGiB: 1 }] });
    const ids = [await makeVolume(1), await makeVolume(1)];
    const { id } = await launch(provider, ids);
    assert.equal(stored(id)?.subnet.zone, world.endpoint.account.subnets[1]?.zone);
    for (let i = 0; i < 2; i++) await attachment(provider).attach(id, ids, background());
    const attached = stored(id)?.volumes.filter((v) => ids.includes(v.id));
    assert.deepEqual(
      attached?.map((v) => [v.device, v.deleteOnTermination]),
      [
        ["/dev/sdp", false],
        ["/dev/sdo", false],
      ],
    );
    await provider.deleteInstance(id, background());
    world.clock.advance(600_000);
    const left = world.endpoint.account.leftovers().filter((l) => l.kind === "volume");
    assert.deepEqual(left.map((l) => l.id).sort(), ids.toSorted());
  });

  it("wait for an instance that does not run yet", async () => {
    const provider = await world.provider();
    const volume = await makeVolume(0);
    const { id } = await provider.createInstance(world.spec({ volumes: [volume] }), background());
    world.endpoint.inject({
      action: "AttachVolume",
      error: { code: "IncorrectState", message: `Instance '${id}' is not 'running'.`, status: 400 },
    });
    world.clock.advance(60_000);
    world.takeActions();
    await attachment(provider).attach(id, [volume], background());
    assert.deepEqual(world.takeActions(), ["AttachVolume", "AttachVolume"]);
  });

  it("are let go of, as often as one asks, and only by the instance that has them", async () => {
    const provider = await world.provider();
    const volume = await makeVolume(0);
    const [one, other] = [await launch(provider, [volume]), await launch(provider, [volume])];
    await attachment(provider).attach(one.id, [volume], background());
    await attachment(provider).detach(other.id, [volume], background());
    assert.ok(stored(one.id)?.volumes.some((v) => v.id === volume));
    await assert.rejects(attachment(provider).attach(other.id, [volume], background()), {
      ...{ code: "unavailable", retryable: true },
      message: new RegExp(`${volume} is attached to ${one.id} still`),
    });
    for (let i = 0; i < 2; i++) await attachment(provider).detach(one.id, [volume], background());
    await attachment(provider).attach(other.id, [volume], background());
    assert.ok(stored(other.id)?.volumes.some((v) => v.id === volume));
  });

  it("are refused by name: what is none, what is not there, what is in several zones or where no subnet is", async () => {
    const provider = await world.provider({ subnets: ["subnet-0a1b2c3d4e5f6000a"] });
    assert.throws(() => attachment(provider).check("disk-1"), {
      code: "invalid_argument",
      message: /"disk-1" is no EBS/,
    });
    attachment(provider).check("vol-0123456789abcdef0");
    const [near, far] = [await makeVolume(0), await makeVolume(1)];
    const refuse = (volumes: readonly string[], code: string, message: RegExp): Promise<void> =>
      assert.rejects(provider.createInstance(world.spec({ volumes }), background()), { code, message });
    await refuse(["vol-0123456789abcdef0"], "invalid_argument", /vol-0123456789abcdef0 is not in eu-west-1/);
    await refuse([near, far], "invalid_argument", /are in zones eu-west-1a, eu-west-1b/);
    await refuse([far], "failed_precondition", /in eu-west-1b, where none of providers\.aws\.subnets is/);
    assert.equal(world.endpoint.account.instances.size, 0);
  });
});
