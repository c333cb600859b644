import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { afterEach, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import {
  CreateTagsCommand,
  DescribeInstancesCommand,
  EC2Client,
  type EC2ClientConfig,
  RunInstancesCommand,
  type RunInstancesCommandInput,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { Ec2Endpoint, type EndpointOptions, installBoto, ManualClock, TEST_CREDENTIALS } from "./index.ts";

const boto = await installBoto();
const noBoto = "missing" in boto ? boto.missing : false;
const MINIMUM = { ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "m6a.large", MinCount: 1, MaxCount: 1 } as const;
const SUBNET_A = "subnet-0a1b2c3d4e5f6000a";
const SUBNET_B = "subnet-0a1b2c3d4e5f6000b";

let endpoint: Ec2Endpoint;
let clock: ManualClock;
let clients: EC2Client[] = [];

async function start(options: EndpointOptions = {}): Promise<void> {
  clock = new ManualClock();
  endpoint = await Ec2Endpoint.start({ clock, ...options });
}
function client(change: EC2ClientConfig = {}): EC2Client {
  const made = new EC2Client({
    endpoint: endpoint.url,
    region: "eu-west-1",
    credentials: TEST_CREDENTIALS,
    maxAttempts: 1,
    ...change,
  });
  clients.push(made);
  return made;
}
/** A client that adds parameters which its SDK would not send. */
function clientAdding(parameters: string): EC2Client {
  const made = client();
  made.middlewareStack.add(
    (next) => (args) => {
      (args.request as { body: string }).body += `&${parameters}`;
      return next(args);
    },
    { step: "serialize", priority: "low" },
  );
  return made;
}
async function run(input: Partial<RunInstancesCommandInput> = {}): Promise<string> {
  const made = await client().send(new RunInstancesCommand({ ...MINIMUM, ...input }));
  return made.Instances?.[0]?.InstanceId ?? "";
}
afterEach(async () => {
  for (const c of clients) c.destroy();
  clients = [];
  await endpoint[Symbol.asyncDispose]();
  assert.deepEqual(endpoint.replyProblems, []);
});

describe("the EC2 endpoint, to unmodified AWS SDK", () => {
  beforeEach(() => start());

  for (const [what, change, code] of [
    ["another secret", { credentials: { ...TEST_CREDENTIALS, secretAccessKey: "other" } }, "SignatureDoesNotMatch"],
    ["an unknown key", { credentials: { accessKeyId: "AKIAOTHER", secretAccessKey: "x" } }, "AuthFailure"],
    ["another region", { region: "us-east-2" }, "AuthFailure"],
    ["a clock that is an hour late", { systemClockOffset: -3_600_000 }, "RequestExpired"],
  ] as const) {
    it(`refuses a signature with ${what}`, async () => {
      await assert.rejects(client(change).send(new DescribeInstancesCommand()), { name: code });
    });
  }

  it("refuses a request without a signature", async () => {
    const reply = await fetch(endpoint.url, { method: "POST", body: "Action=DescribeInstances&Version=2016-11-15" });
    assert.equal(reply.status, 401);
    assert.match(await reply.text(), /<Response><Errors><Error><Code>AuthFailure<\/Code>/);
  });

  it("refuses what it does not read, so that nothing is ignored", async () => {
    const adding = clientAdding("NewOption=1");
    await assert.rejects(adding.send(new RunInstancesCommand({ ...MINIMUM })), { name: "UnknownParameter" });
    assert.equal(endpoint.account.instances.size, 0);
  });

  it("refuses combinations and values that EC2 refuses", async () => {
    const nic = { DeviceIndex: 0, SubnetId: SUBNET_A };
    const refused: readonly (readonly [Partial<RunInstancesCommandInput>, string])[] = [
      [{ NetworkInterfaces: [nic], SubnetId: SUBNET_A }, "InvalidParameterCombination"],
      [{ NetworkInterfaces: [nic], SecurityGroupIds: ["sg-0a1b2c3d4e5f60001"] }, "InvalidParameterCombination"],
      [{ ImageId: "ami-0a1b2c3d4e5f60003" }, "InvalidParameterValue"],
      [{ ImageId: "ami-0a1b2c3d4e5f60077" }, "InvalidAMIID.NotFound"],
      [{ SubnetId: "subnet-0a1b2c3d4e5f60077" }, "InvalidSubnetID.NotFound"],
      [{ SubnetId: SUBNET_A, SecurityGroupIds: ["sg-0a1b2c3d4e5f60003"] }, "InvalidGroup.NotFound"],
      [{ KeyName: "nobody" }, "InvalidKeyPair.NotFound"],
      [{ InstanceType: "m7i.large", CpuOptions: { AmdSevSnp: "enabled" } }, "InvalidParameterCombination"],
      [{ UserData: "###" }, "InvalidUserData.Malformed"],
      [{ UserData: Buffer.alloc(16_385).toString("base64") }, "InvalidParameterValue"],
      [{ BlockDeviceMappings: [{ DeviceName: "/dev/xvda", Ebs: { VolumeSize: 1 } }] }, "InvalidBlockDeviceMapping"],
      [{ TagSpecifications: [{ ResourceType: "subnet", Tags: [] }] }, "InvalidParameterValue"],
      [
        { TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "aws:x", Value: "" }] }] },
        "InvalidParameterValue",
      ],
      [{ MinCount: 2 }, "InvalidParameterValue"],
      [{ ClientToken: "x".repeat(65) }, "InvalidParameterValue"],
      [{ LaunchTemplate: { LaunchTemplateName: "none" } }, "InvalidLaunchTemplateName.NotFoundException"],
    ];
    for (const [input, name] of refused)
      await assert.rejects(run(input), { name }, JSON.stringify(input).slice(0, 200));
    assert.equal(endpoint.account.instances.size, 0);
  });

  it("gives the first instance again for a client token, per zone, and refuses other parameters", async () => {
    const first = await run({ ClientToken: "t", SubnetId: SUBNET_A });
    assert.equal(await run({ ClientToken: "t", SubnetId: SUBNET_A }), first);
    assert.notEqual(await run({ ClientToken: "t", SubnetId: SUBNET_B }), first);
    await assert.rejects(run({ ClientToken: "t", SubnetId: SUBNET_A, InstanceType: "c6a.large" }), {
      name: "IdempotentParameterMismatch",
    });
    await client().send(new TerminateInstancesCommand({ InstanceIds: [first] }));
    await assert.rejects(run({ ClientToken: "t", SubnetId: SUBNET_A }), { name: "IdempotentInstanceTerminated" });
  });

  it("takes no token for used by a launch that it refused", async () => {
    endpoint.account.knobs.short.add("m6a.large/eu-west-1a");
    await assert.rejects(run({ ClientToken: "t", SubnetId: SUBNET_A }), { name: "InsufficientInstanceCapacity" });
    endpoint.account.knobs.short.clear();
    assert.match(await run({ ClientToken: "t", SubnetId: SUBNET_A, InstanceType: "c6a.large" }), /^i-/);
  });

  it("goes through the states of an instance by its clock, and forgets it in the end", async () => {
    Object.assign(endpoint.account.knobs, { pendingMs: 1000, shuttingDownMs: 2000, terminatedMs: 3000 });
    const id = await run();
    const state = async () => {
      const found = await client().send(new DescribeInstancesCommand({ InstanceIds: [id] }));
      return found.Reservations?.[0]?.Instances?.[0]?.State?.Name;
    };
    assert.equal(await state(), "pending");
    clock.advance(1000);
    assert.equal(await state(), "running");
    await client().send(new TerminateInstancesCommand({ InstanceIds: [id] }));
    assert.equal(await state(), "shutting-down");
    assert.equal(endpoint.account.leftovers().length, 3);
    clock.advance(2000);
    assert.equal(await state(), "terminated");
    assert.deepEqual(endpoint.account.leftovers(), []);
    clock.advance(3000);
    await assert.rejects(state(), {
      name: "InvalidInstanceID.NotFound",
      message: `The instance ID '${id}' does not exist`,
    });
  });

  it("hides a new instance for as many calls as it is told", async () => {
    endpoint.account.knobs.hiddenDescribes = 2;
    const id = await run();
    const ask = () => client().send(new DescribeInstancesCommand({ InstanceIds: [id] }));
    await assert.rejects(ask(), { name: "InvalidInstanceID.NotFound" });
    await assert.rejects(ask(), { name: "InvalidInstanceID.NotFound" });
    assert.equal((await ask()).Reservations?.length, 1);
  });

  it("takes a NextToken for the request that it came from only", async () => {
    endpoint.account.knobs.maxPage = 1;
    await run();
    await run();
    const first = await client().send(new DescribeInstancesCommand({ MaxResults: 5 }));
    assert.ok(first.NextToken !== undefined);
    const { NextToken } = first;
    assert.equal(
      (await client().send(new DescribeInstancesCommand({ MaxResults: 5, NextToken }))).NextToken,
      undefined,
    );
    const other = new DescribeInstancesCommand({ MaxResults: 6, NextToken });
    await assert.rejects(client().send(other), { name: "InvalidNextToken" });
    const both = new DescribeInstancesCommand({ InstanceIds: ["i-0123456789abcdef0"], MaxResults: 5 });
    await assert.rejects(client().send(both), { name: "InvalidParameterCombination" });
    await assert.rejects(client().send(new DescribeInstancesCommand({ MaxResults: 4 })), {
      name: "InvalidParameterValue",
    });
  });

  it("limits requests by a bucket that fills with time", async () => {
    endpoint.account.knobs.buckets.set("RunInstances", { capacity: 2, refillPerSecond: 2 });
    await run();
    await run();
    await assert.rejects(run(), { name: "RequestLimitExceeded" });
    await client().send(new DescribeInstancesCommand());
    clock.advance(500);
    await run();
    await assert.rejects(run(), { name: "RequestLimitExceeded" });
  });

  it("changes nothing in a dry run, and says who may not", async () => {
    await assert.rejects(run({ DryRun: true }), { name: "DryRunOperation" });
    await assert.rejects(run({ DryRun: true, KeyName: "nobody" }), { name: "InvalidKeyPair.NotFound" });
    endpoint.account.knobs.denied.add("RunInstances");
    await assert.rejects(run({ DryRun: true }), { name: "UnauthorizedOperation" });
    assert.equal(endpoint.account.instances.size, 0);
  });

  it("fails after the effect when told to", async () => {
    const error = { code: "InternalError", message: "An internal error has occurred", status: 500 };
    endpoint.inject({ action: "RunInstances", afterEffect: true, error });
    await assert.rejects(run(), { name: "InternalError" });
    assert.equal(endpoint.account.instances.size, 1);
  });

  it("puts what a host says behind an instance", async () => {
    const ended: string[] = [];
    endpoint.account.host = {
      launch: async ({ userData }) => `127.0.0.${userData.toString()}`,
      terminate: async (id) => void ended.push(id),
      console: async () => "hello",
    };
    const made = await client().send(
      new RunInstancesCommand({ ...MINIMUM, UserData: Buffer.from("9").toString("base64") }),
    );
    const [instance] = made.Instances ?? [];
    assert.equal(instance?.PrivateIpAddress, "127.0.0.9");
    await client().send(new TerminateInstancesCommand({ InstanceIds: [instance?.InstanceId ?? ""] }));
    assert.deepEqual(ended, [instance?.InstanceId]);
  });
});

describe("the EC2 endpoint with botocore's model", { skip: noBoto }, () => {
  beforeEach(() => ("missing" in boto ? undefined : start({ model: boto.model })));

  for (const [parameters, code] of [
    ["NewOption=1", "UnknownParameter"],
    ["Placement.NewOption=1", "UnknownParameter"],
    ["NetworkInterface.1.Groups.1=sg-0a1b2c3d4e5f60001", "UnknownParameter"],
    ["Placement.Tenancy=shared", "InvalidParameterValue"],
    ["EbsOptimized=yes", "InvalidParameterValue"],
    ["Monitoring.Foo=1", "UnknownParameter"],
    ["BlockDeviceMapping.2.DeviceName=x", "UnknownParameter"],
    ["Monitoring.Enabled=true", "NotImplementedByTestEndpoint"],
  ] as const) {
    it(`answers ${code} to ${parameters}`, async () => {
      await assert.rejects(clientAdding(parameters).send(new RunInstancesCommand({ ...MINIMUM })), { name: code });
      assert.equal(endpoint.account.instances.size, 0);
    });
  }

  it("refuses a filter that does not exist and names one that it lacks", async () => {
    const ask = (Name: string) => client().send(new DescribeInstancesCommand({ Filters: [{ Name, Values: ["x"] }] }));
    await assert.rejects(ask("colour"), { name: "InvalidParameterValue" });
    await assert.rejects(ask("kernel-id"), { name: "NotImplementedByTestEndpoint" });
    await ask("tag:anything");
  });

  it("refuses a request that lacks what it needs", async () => {
    await assert.rejects(client().send(new CreateTagsCommand({ Resources: [], Tags: [] })), {
      name: "MissingParameter",
    });
  });

  it("has replies checked: one that EC2 could not send is seen", () => {
    if ("missing" in boto) return;
    const { model } = boto;
    assert.deepEqual(
      model.checkReply("DescribeSubnets", { subnetSet: [{ subnetId: "subnet-1", state: "available" }] }),
      [],
    );
    assert.equal(model.checkReply("DescribeSubnets", { subnetSet: [{ subnetID: "subnet-1" }] }).length, 1);
    assert.equal(model.checkReply("DescribeSubnets", { subnets: [] }).length, 1);
    assert.equal(model.checkReply("DescribeSubnets", { subnetSet: [{ state: "fine" }] }).length, 1);
    assert.equal(model.checkReply("DescribeSubnets", { subnetSet: [{ availableIpAddressCount: "many" }] }).length, 1);
    assert.equal(model.checkReply("DescribeSubnets", { subnetSet: "none" }).length, 1);
  });
});

/** What a program does that knows nothing of this project. */
const BOTO_PROGRAM = `
import json, sys
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ec2 = boto3.client("ec2", config=Config(retries={"max_attempts": 1}))
out = {}
def code_of(call):
    try:
        call()
    except ClientError as e:
        return e.response["Error"]["Code"]
    return None

tags = [{"ResourceType": kind, "Tags": [{"Key": "team", "Value": "blue"}]} for kind in ("instance", "volume", "network-interface")]
launch = dict(ImageId="ami-0a1b2c3d4e5f60001", InstanceType="m6a.large", MinCount=7, MaxCount=7, ClientToken="boto",
    CpuOptions={"AmdSevSnp": "enabled"}, UserData="#cloud-config", TagSpecifications=tags,
    MetadataOptions={"HttpTokens": "required"},
    NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": "subnet-0a1b2c3d4e5f6000b", "Groups": ["sg-0a1b2c3d4e5f60001"]}])
out["dry"] = code_of(lambda: ec2.run_instances(**launch, DryRun=True))
ids = [i["InstanceId"] for i in ec2.run_instances(**launch)["Instances"]]
out["again"] = [i["InstanceId"] for i in ec2.run_instances(**launch)["Instances"]] == ids
ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
pages = list(ec2.get_paginator("describe_instances").paginate(
    Filters=[{"Name": "tag:team", "Values": ["bl*"]}], PaginationConfig={"PageSize": 5}))
found = [i for p in pages for r in p["Reservations"] for i in r["Instances"]]
out["pages"] = len(pages)
out["found"] = sorted(i["InstanceId"] for i in found) == sorted(ids)
out["snp"] = all(i["CpuOptions"]["AmdSevSnp"] == "enabled" for i in found)
ec2.create_tags(Resources=[ids[0]], Tags=[{"Key": "state", "Value": "warm"}])
out["tagged"] = [t["ResourceId"] for t in ec2.describe_tags(Filters=[{"Name": "key", "Values": ["state"]}])["Tags"]] == [ids[0]]
volumes = ec2.describe_volumes(Filters=[{"Name": "tag:team", "Values": ["blue"]}])["Volumes"]
out["volumes"] = len(volumes)
out["attached"] = sorted(v["Attachments"][0]["InstanceId"] for v in volumes) == sorted(ids)
out["interfaces"] = len(ec2.describe_network_interfaces(Filters=[{"Name": "tag:team", "Values": ["blue"]}])["NetworkInterfaces"])
out["types"] = [t["MemoryInfo"]["SizeInMiB"] for t in ec2.describe_instance_types(InstanceTypes=["m6a.large"])["InstanceTypes"]]
out["zones"] = [s["AvailabilityZone"] for s in ec2.describe_subnets()["Subnets"]]
out["ports"] = [p["FromPort"] for p in ec2.describe_security_groups(GroupIds=["sg-0a1b2c3d4e5f60001"])["SecurityGroups"][0]["IpPermissions"]]
out["image"] = ec2.describe_images(ImageIds=["ami-0a1b2c3d4e5f60001"])["Images"][0]["BootMode"]
out["console"] = ec2.get_console_output(InstanceId=ids[0]).get("Output", "")
ec2.terminate_instances(InstanceIds=ids)
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
out["left"] = len(ec2.describe_volumes()["Volumes"]) + len(ec2.describe_network_interfaces()["NetworkInterfaces"])
out["unknown"] = code_of(lambda: ec2.terminate_instances(InstanceIds=["i-0123456789abcdef0"]))
json.dump(out, sys.stdout)
`;

describe("the EC2 endpoint, to boto3", { skip: noBoto, timeout: 60_000 }, () => {
  it("is EC2: instances are made, listed, tagged, described and ended", async () => {
    if ("missing" in boto) return;
    await start({ model: boto.model });
    const env = {
      PATH: process.env.PATH ?? "",
      PYTHONPATH: boto.path,
      AWS_ENDPOINT_URL_EC2: endpoint.url,
      AWS_DEFAULT_REGION: "eu-west-1",
      AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
      AWS_CONFIG_FILE: "/dev/null",
      AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    };
    const { stdout } = await promisify(execFile)("python3", ["-c", BOTO_PROGRAM], { env });
    assert.deepEqual(JSON.parse(stdout), {
      ...{
        dry: "DryRunOperation",
        again: true,
        pages: 2,
        found: true,
        snp: true,
        tagged: true,
        volumes: 7,
        attached: true,
      },
      ...{
        interfaces: 7,
        types: [8192],
        zones: ["eu-west-1a", "eu-west-1b", "eu-west-1c"],
        ports: [15150],
        image: "uefi",
      },
      ...{ console: "", left: 0, unknown: "InvalidInstanceID.NotFound" },
    });
  });
});
