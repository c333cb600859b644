import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { open, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { afterEach, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DeregisterImageCommand,
  DescribeImagesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  EC2Client,
  RegisterImageCommand,
  RunInstancesCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { Ec2Endpoint, installBoto, ManualClock, TEST_CREDENTIALS } from "./index.ts";

const boto = await installBoto();
const noBoto = "missing" in boto ? boto.missing : false;
const BLOCK = 524_288;

let clock: ManualClock;
let endpoint: Ec2Endpoint;
let ebs: EBSClient;
let ec2: EC2Client;
let before: Set<string>;

beforeEach(async () => {
  before = new Set(await readdir(tmpdir()));
  clock = new ManualClock();
  const models = "missing" in boto ? {} : { model: boto.model, ebsModel: boto.ebsModel };
  endpoint = await Ec2Endpoint.start({ clock, ...models });
  const config = { endpoint: endpoint.url, region: "eu-west-1", credentials: TEST_CREDENTIALS, maxAttempts: 1 };
  ebs = new EBSClient(config);
  ec2 = new EC2Client(config);
});
afterEach(async () => {
  ebs.destroy();
  ec2.destroy();
  await endpoint[Symbol.asyncDispose]();
  assert.deepEqual(endpoint.replyProblems, []);
  assert.deepEqual(
    (await readdir(tmpdir())).filter((name) => name.startsWith("ebs-") && !before.has(name)),
    [],
  );
});

function block(fill: number): { data: Buffer; sum: string } {
  const data = Buffer.alloc(BLOCK, fill);
  return { data, sum: createHash("sha256").update(data).digest("base64") };
}

async function put(SnapshotId: string, BlockIndex: number, fill: number, change: object = {}): Promise<void> {
  const { data, sum } = block(fill);
  const asked = { BlockData: data, DataLength: BLOCK, Checksum: sum, ChecksumAlgorithm: "SHA256" } as const;
  await ebs.send(new PutSnapshotBlockCommand({ SnapshotId, BlockIndex, ...asked, ...change }));
}

/** A complete snapshot with two blocks. */
async function snapshot(): Promise<string> {
  const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, Timeout: 10 }));
  await put(SnapshotId, 0, 1);
  await put(SnapshotId, 2047, 2);
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 2 }));
  return SnapshotId;
}

async function register(SnapshotId: string, change: object = {}): Promise<string> {
  const made = await ec2.send(
    new RegisterImageCommand({
      ...{ Name: "podvm", Architecture: "x86_64", BootMode: "uefi", TpmSupport: "v2.0", EnaSupport: true },
      ...{ VirtualizationType: "hvm", RootDeviceName: "/dev/xvda", ImdsSupport: "v2.0" },
      BlockDeviceMappings: [{ DeviceName: "/dev/xvda", Ebs: { SnapshotId, VolumeType: "gp3" } }],
      ...change,
    }),
  );
  return made.ImageId ?? "";
}

describe("the EBS direct APIs of the endpoint, to unmodified AWS SDK", () => {
  it("make a disk of the blocks that were written, with holes between them", async () => {
    const id = await snapshot();
    const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
    assert.deepEqual(
      Blocks.map((b) => b.BlockIndex),
      [0, 2047],
    );
    const BlockToken = Blocks[1]?.BlockToken;
    const got = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex: 2047, BlockToken }));
    assert.deepEqual(Buffer.from((await got.BlockData?.transformToByteArray()) ?? []), block(2).data);
    await using file = await open((await endpoint.account.snapshots.file(id)) ?? "", "r");
    const { size, blocks } = await file.stat();
    assert.equal(size, 1024 ** 3);
    assert.ok(blocks * 512 < 4 * BLOCK, "it is sparse");
    const { buffer } = await file.read(Buffer.alloc(3), 0, 3, size - 3);
    assert.deepEqual([...buffer], [2, 2, 2]);
  });

  it("refuse what does not fit: sums, sizes, counts, order", async () => {
    const { SnapshotId = "" } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
    const refused = (work: Promise<unknown>, name: string, Reason?: string) =>
      assert.rejects(work, Reason === undefined ? { name } : { name, Reason });
    await refused(put(SnapshotId, 0, 1, { Checksum: block(2).sum }), "ValidationException", "INVALID_BLOCK");
    await refused(
      put(SnapshotId, 0, 1, { BlockData: Buffer.alloc(10), DataLength: 10 }),
      "ValidationException",
      "INVALID_BLOCK",
    );
    await refused(put(SnapshotId, 2048, 1), "ValidationException", "INVALID_PARAMETER_VALUE");
    await refused(put("snap-0123456789abcdef0", 0, 1), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND");
    await refused(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId })), "ValidationException");
    await put(SnapshotId, 5, 1);
    await refused(
      ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 2 })),
      "ValidationException",
      "INVALID_PARAMETER_VALUE",
    );
    const whole = { ChecksumAlgorithm: "SHA256", ChecksumAggregationMethod: "LINEAR" } as const;
    const done = (Checksum: string) =>
      ebs.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: 1, Checksum, ...whole }));
    await refused(done(block(1).sum), "ValidationException");
    await refused(register(SnapshotId), "IncorrectState");
    await done(
      createHash("sha256")
        .update(Buffer.from(block(1).sum, "base64"))
        .digest("base64"),
    );
    await refused(put(SnapshotId, 6, 1), "ValidationException", "INVALID_SNAPSHOT_ID");
  });

  it("start once per client token, and fail what nobody writes to any more", async () => {
    const start = (VolumeSize: number) =>
      ebs.send(new StartSnapshotCommand({ VolumeSize, ClientToken: "t", Timeout: 10 }));
    const { SnapshotId } = await start(1);
    assert.equal((await start(1)).SnapshotId, SnapshotId);
    await assert.rejects(start(2), { name: "ConflictException" });
    clock.advance(10 * 60_000 + 1);
    const { Snapshots } = await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId ?? ""] }));
    assert.equal(Snapshots?.[0]?.State, "error");
  });

  it("refuse another secret, and a region that is not theirs", async () => {
    const base = { endpoint: endpoint.url, region: "eu-west-1", maxAttempts: 1 };
    const wrong = new EBSClient({ ...base, credentials: { ...TEST_CREDENTIALS, secretAccessKey: "x" } });
    await assert.rejects(wrong.send(new StartSnapshotCommand({ VolumeSize: 1 })), {
      name: "InvalidSignatureException",
    });
    const far = new EBSClient({ ...base, region: "us-east-1", credentials: TEST_CREDENTIALS });
    await assert.rejects(far.send(new StartSnapshotCommand({ VolumeSize: 1 })), {
      name: "UnrecognizedClientException",
    });
    for (const client of [wrong, far]) client.destroy();
  });
});

describe("images and volumes of the EC2 endpoint", () => {
  it("registers an image once per name, and deletes no snapshot that it has", async () => {
    const id = await snapshot();
    const tags = [{ ResourceType: "image" as const, Tags: [{ Key: "a", Value: "b" }] }];
    const image = await register(id, { TagSpecifications: tags });
    await assert.rejects(register(id), { name: "InvalidAMIName.Duplicate" });
    await assert.rejects(register(id, { Name: "a#b" }), { name: "InvalidAMIName.Malformed" });
    await assert.rejects(register(id, { Name: "other", BootMode: "legacy-bios" }), {
      name: "InvalidParameterCombination",
    });
    await assert.rejects(register("snap-0123456789abcdef0", { Name: "other" }), { name: "InvalidSnapshot.NotFound" });
    const { Images = [] } = await ec2.send(
      new DescribeImagesCommand({ Owners: ["self"], Filters: [{ Name: "tag:a", Values: ["b"] }] }),
    );
    assert.deepEqual(
      Images.map((i) => [i.ImageId, i.TpmSupport, i.BlockDeviceMappings?.[0]?.Ebs?.VolumeSize]),
      [[image, "v2.0", 1]],
    );
    await assert.rejects(ec2.send(new DeleteSnapshotCommand({ SnapshotId: id })), { name: "InvalidSnapshot.InUse" });
    assert.equal(endpoint.account.leftovers().length, 2);
    await ec2.send(new DeregisterImageCommand({ ImageId: image }));
    await ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
    assert.deepEqual(endpoint.account.leftovers(), []);
  });

  it("attaches a volume in its zone, to one instance, and lets it outlive that", async () => {
    const create = (AvailabilityZone: string) =>
      ec2.send(
        new CreateVolumeCommand({ AvailabilityZone, Size: 4, VolumeType: "gp3", ClientToken: AvailabilityZone }),
      );
    const { VolumeId = "" } = await create("eu-west-1a");
    assert.equal((await create("eu-west-1a")).VolumeId, VolumeId, "its token is good for one");
    const { VolumeId: far = "" } = await create("eu-west-1b");
    const launch = { ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "m6a.large", MinCount: 1, MaxCount: 1 } as const;
    const { Instances } = await ec2.send(new RunInstancesCommand({ ...launch, SubnetId: "subnet-0a1b2c3d4e5f6000a" }));
    const InstanceId = Instances?.[0]?.InstanceId ?? "";
    const attach = (id: string, Device = "/dev/sdf") =>
      ec2.send(new AttachVolumeCommand({ VolumeId: id, InstanceId, Device }));
    await assert.rejects(attach(far), { name: "InvalidVolume.ZoneMismatch" });
    await assert.rejects(attach(VolumeId, "/dev/xvda"), { name: "InvalidParameterValue" });
    assert.equal((await attach(VolumeId)).State, "attaching");
    await assert.rejects(attach(VolumeId, "/dev/sdg"), { name: "VolumeInUse" });
    await assert.rejects(ec2.send(new DeleteVolumeCommand({ VolumeId })), { name: "VolumeInUse" });
    await ec2.send(new TerminateInstancesCommand({ InstanceIds: [InstanceId] }));
    const { Volumes } = await ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }));
    assert.equal(Volumes?.[0]?.State, "available");
    await assert.rejects(ec2.send(new DetachVolumeCommand({ VolumeId })), { name: "IncorrectState" });
    for (const id of [VolumeId, far]) await ec2.send(new DeleteVolumeCommand({ VolumeId: id }));
    assert.deepEqual(endpoint.account.leftovers(), []);
  });

  it("launches with a second interface and with data volumes, and ends with all of them", async () => {
    const nic = (DeviceIndex: number) => ({ DeviceIndex, SubnetId: "subnet-0a1b2c3d4e5f6000b" });
    const launch = { ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "m6a.large", MinCount: 1, MaxCount: 1 } as const;
    const run = (change: object) => ec2.send(new RunInstancesCommand({ ...launch, ...change }));
    await assert.rejects(run({ NetworkInterfaces: [nic(0), { ...nic(1), AssociatePublicIpAddress: true }] }), {
      name: "InvalidParameterCombination",
    });
    await assert.rejects(run({ NetworkInterfaces: [nic(0), { ...nic(1), SubnetId: "subnet-0a1b2c3d4e5f6000a" }] }), {
      name: "InvalidParameterCombination",
    });
    const { Instances } = await run({
      NetworkInterfaces: [nic(0), nic(1)],
      BlockDeviceMappings: [{ DeviceName: "/dev/sdf", Ebs: { VolumeSize: 3, DeleteOnTermination: true } }],
    });
    const [made] = Instances ?? [];
    assert.deepEqual(
      made?.NetworkInterfaces?.map((n) => n.Attachment?.DeviceIndex),
      [0, 1],
    );
    assert.equal(endpoint.account.leftovers().length, 5);
    await ec2.send(new TerminateInstancesCommand({ InstanceIds: [made?.InstanceId ?? ""] }));
    assert.deepEqual(endpoint.account.leftovers(), []);
  });
});

/** What a program does that knows nothing of this project. */
const BOTO_PROGRAM = `
import base64, hashlib, json, sys
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

config = Config(retries={"max_attempts": 1})
ebs, ec2 = boto3.client("ebs", config=config), boto3.client("ec2", config=config)
out = {}
def code_of(call):
    try:
        call()
    except ClientError as e:
        return e.response["Error"]["Code"]
    return None

data = bytes(range(256)) * 2048
sha = hashlib.sha256(data)
snap = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "team", "Value": "blue"}])["SnapshotId"]
put = lambda **change: ebs.put_snapshot_block(**{**dict(SnapshotId=snap, BlockIndex=3, BlockData=data, DataLength=len(data),
    Checksum=base64.b64encode(sha.digest()).decode(), ChecksumAlgorithm="SHA256"), **change})
put()
out["bad"] = code_of(lambda: put(Checksum=base64.b64encode(b"0" * 32).decode()))
whole = base64.b64encode(hashlib.sha256(sha.digest()).digest()).decode()
ebs.complete_snapshot(SnapshotId=snap, ChangedBlocksCount=1, Checksum=whole, ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR")
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snap], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
blocks = ebs.list_snapshot_blocks(SnapshotId=snap)["Blocks"]
out["blocks"] = [b["BlockIndex"] for b in blocks]
out["read"] = ebs.get_snapshot_block(SnapshotId=snap, BlockIndex=3, BlockToken=blocks[0]["BlockToken"])["BlockData"].read() == data
found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:team", "Values": ["blue"]}])["Snapshots"]
out["found"] = [s["SnapshotId"] for s in found] == [snap]
image = ec2.register_image(Name="from-boto", Architecture="x86_64", BootMode="uefi", TpmSupport="v2.0", VirtualizationType="hvm",
    RootDeviceName="/dev/xvda", BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snap}}])["ImageId"]
ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
i = ec2.run_instances(ImageId=image, InstanceType="m6a.large", MinCount=1, MaxCount=1)["Instances"][0]
zone, iid = i["Placement"]["AvailabilityZone"], i["InstanceId"]
volume = ec2.create_volume(AvailabilityZone=zone, Size=2, VolumeType="gp3",
    TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "blue"}]}])["VolumeId"]
ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
ec2.attach_volume(VolumeId=volume, InstanceId=iid, Device="/dev/sdf")
ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
out["busy"] = code_of(lambda: ec2.delete_volume(VolumeId=volume))
ec2.detach_volume(VolumeId=volume)
ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
ec2.delete_tags(Resources=[volume], Tags=[{"Key": "team"}])
out["tags"] = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0].get("Tags", [])
ec2.delete_volume(VolumeId=volume)
ec2.terminate_instances(InstanceIds=[iid])
out["used"] = code_of(lambda: ec2.delete_snapshot(SnapshotId=snap))
ec2.deregister_image(ImageId=image)
ec2.delete_snapshot(SnapshotId=snap)
out["left"] = len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) + len(ec2.describe_volumes()["Volumes"])
json.dump(out, sys.stdout)
`;

describe("the storage of the EC2 endpoint, to boto3", { skip: noBoto, timeout: 60_000 }, () => {
  it("is EC2's: snapshots, images and volumes are made, found, used and deleted", async () => {
    if ("missing" in boto) return;
    const env = {
      ...{ PATH: process.env.PATH ?? "", PYTHONPATH: boto.path, AWS_DEFAULT_REGION: "eu-west-1" },
      ...{ AWS_ENDPOINT_URL_EC2: endpoint.url, AWS_ENDPOINT_URL_EBS: endpoint.url },
      AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
      ...{ AWS_CONFIG_FILE: "/dev/null", AWS_SHARED_CREDENTIALS_FILE: "/dev/null" },
    };
    const { stdout } = await promisify(execFile)("python3", ["-c", BOTO_PROGRAM], { env });
    assert.deepEqual(JSON.parse(stdout), {
      ...{ bad: "ValidationException", blocks: [3], read: true, found: true, busy: "VolumeInUse", tags: [] },
      ...{ used: "InvalidSnapshot.InUse", left: 0 },
    });
    assert.deepEqual(endpoint.account.leftovers(), []);
  });
});
