import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { InstanceSpec } from "../../src/provider/index.ts";
import { AwsWorld, installBoto } from "../../test/clouds/ec2/index.ts";

const boto = await installBoto();

interface Case {
  readonly config: Readonly<Record<string, unknown>>;
  readonly spec?: Partial<InstanceSpec>;
  /** Parameters of RunInstances that the option makes; undefined = the request must not have it. */
  readonly sends: Readonly<Record<string, string | undefined>>;
}

const NIC = "NetworkInterface.1";
const DISK = "BlockDeviceMapping.1.Ebs";
const SPOT = "InstanceMarketOptions";

/** One line for each line of the option table in README.md. */
const CASES: Readonly<Record<string, Case>> = {
  subnets: {
    config: { subnets: ["subnet-0a1b2c3d4e5f6000b"] },
    sends: { [`${NIC}.SubnetId`]: "subnet-0a1b2c3d4e5f6000b" },
  },
  securityGroups: {
    config: { securityGroups: ["sg-0a1b2c3d4e5f60001", "sg-0a1b2c3d4e5f60002"] },
    sends: {
      [`${NIC}.SecurityGroupId.1`]: "sg-0a1b2c3d4e5f60001",
      [`${NIC}.SecurityGroupId.2`]: "sg-0a1b2c3d4e5f60002",
    },
  },
  imageId: { config: { imageId: "ami-0a1b2c3d4e5f60002" }, sends: { ImageId: "ami-0a1b2c3d4e5f60002" } },
  "imageName, imageOwners": {
    config: { imageId: undefined, imageName: "kata-*", imageOwners: ["111122223333"] },
    sends: { ImageId: "ami-0a1b2c3d4e5f60002" },
  },
  images: {
    config: { images: ["ami-0a1b2c3d4e5f60002"] },
    spec: { image: "ami-0a1b2c3d4e5f60002" },
    sends: { ImageId: "ami-0a1b2c3d4e5f60002" },
  },
  instanceType: {
    config: { instanceType: "r6a.large", instanceTypes: [] },
    spec: { vcpus: 0, memoryMiB: 0 },
    sends: { InstanceType: "r6a.large" },
  },
  "instanceTypes, for a pod with a GPU": {
    config: { instanceTypes: ["g5.*", "p4d.*"], tee: "none" },
    spec: { gpus: 2, vcpus: 4, memoryMiB: 4096 },
    sends: { InstanceType: "g5.12xlarge", "CpuOptions.AmdSevSnp": undefined },
  },
  instanceTypes: { config: { instanceTypes: ["c6a.*"] }, spec: { vcpus: 3 }, sends: { InstanceType: "c6a.xlarge" } },
  arch: {
    config: {
      arch: "arm64",
      tee: "none",
      imageId: "ami-0a1b2c3d4e5f60003",
      instanceTypes: ["c7g.*"],
      instanceType: "m6g.large",
    },
    sends: { InstanceType: "c7g.large", "CpuOptions.AmdSevSnp": undefined },
  },
  tee: { config: {}, sends: { "CpuOptions.AmdSevSnp": "enabled" } },
  "tee, none": { config: { tee: "none" }, sends: { "CpuOptions.AmdSevSnp": undefined } },
  market: {
    config: { market: "spot" },
    sends: {
      [`${SPOT}.MarketType`]: "spot",
      [`${SPOT}.SpotOptions.SpotInstanceType`]: "one-time",
      [`${SPOT}.SpotOptions.InstanceInterruptionBehavior`]: "terminate",
      [`${SPOT}.SpotOptions.MaxPrice`]: undefined,
      "TagSpecification.4.ResourceType": "spot-instances-request",
    },
  },
  spotMaxPrice: {
    config: { market: "spot-then-on-demand", spotMaxPrice: "0.05" },
    sends: { [`${SPOT}.SpotOptions.MaxPrice`]: "0.05" },
  },
  launchTemplate: {
    config: { launchTemplate: { name: "kata" }, imageId: undefined, subnets: [], securityGroups: [] },
    sends: {
      ...{ "LaunchTemplate.LaunchTemplateName": "kata", "LaunchTemplate.Version": "$Default", ImageId: undefined },
      ...{ [`${NIC}.SubnetId`]: undefined, "TagSpecification.1.ResourceType": "instance", InstanceType: "c6a.large" },
    },
  },
  "launchTemplate, by id, with groups": {
    config: { launchTemplate: { id: "lt-0a1b2c3d4e5f60001", version: "1" }, imageId: undefined, subnets: [] },
    sends: { "LaunchTemplate.LaunchTemplateId": "lt-0a1b2c3d4e5f60001", "SecurityGroupId.1": "sg-0a1b2c3d4e5f60001" },
  },
  tenancy: { config: { tenancy: "dedicated" }, sends: { "Placement.Tenancy": "dedicated" } },
  placementGroup: {
    config: { placementGroup: "pods" },
    sends: { "Placement.GroupName": "pods", "Placement.Tenancy": undefined },
  },
  hostId: {
    config: { tenancy: "host", hostId: "h-0a1b2c3d4e5f60001" },
    sends: { "Placement.Tenancy": "host", "Placement.HostId": "h-0a1b2c3d4e5f60001" },
  },
  hostResourceGroupArn: {
    config: { tenancy: "host", hostResourceGroupArn: "arn:aws:resource-groups:eu-west-1:111122223333:group/hosts" },
    sends: { "Placement.HostResourceGroupArn": "arn:aws:resource-groups:eu-west-1:111122223333:group/hosts" },
  },
  rootDiskGiB: { config: { rootDiskGiB: 40 }, sends: { [`${DISK}.VolumeSize`]: "40" } },
  "rootDiskGiB, below the image's": { config: { rootDiskGiB: 1 }, sends: { [`${DISK}.VolumeSize`]: "4" } },
  "rootDiskGiB, of a pod": {
    config: { rootDiskGiB: 40 },
    spec: { rootDiskGiB: 50 },
    sends: { [`${DISK}.VolumeSize`]: "50" },
  },
  rootDiskType: { config: { rootDiskType: "io2", rootDiskIops: 500 }, sends: { [`${DISK}.VolumeType`]: "io2" } },
  rootDiskIops: { config: { rootDiskIops: 4000 }, sends: { [`${DISK}.VolumeType`]: "gp3", [`${DISK}.Iops`]: "4000" } },
  rootDiskThroughputMiBps: { config: { rootDiskThroughputMiBps: 250 }, sends: { [`${DISK}.Throughput`]: "250" } },
  encryptRootDisk: { config: {}, sends: { [`${DISK}.Encrypted`]: "true", [`${DISK}.DeleteOnTermination`]: "true" } },
  "encryptRootDisk, off": { config: { encryptRootDisk: false }, sends: { [`${DISK}.Encrypted`]: undefined } },
  kmsKeyId: { config: { kmsKeyId: "alias/pods" }, sends: { [`${DISK}.KmsKeyId`]: "alias/pods" } },
  dataVolumes: {
    config: {
      dataVolumes: [
        { sizeGiB: 100, iops: 5000, throughputMiBps: 200 },
        { sizeGiB: 10, type: "io2", iops: 100 },
      ],
    },
    sends: {
      ...{ "BlockDeviceMapping.2.DeviceName": "/dev/sdf", "BlockDeviceMapping.3.DeviceName": "/dev/sdg" },
      ...{ "BlockDeviceMapping.2.Ebs.VolumeSize": "100", "BlockDeviceMapping.2.Ebs.VolumeType": "gp3" },
      ...{ "BlockDeviceMapping.2.Ebs.Iops": "5000", "BlockDeviceMapping.2.Ebs.Throughput": "200" },
      ...{ "BlockDeviceMapping.2.Ebs.DeleteOnTermination": "true", "BlockDeviceMapping.2.Ebs.Encrypted": "true" },
      ...{ "BlockDeviceMapping.3.Ebs.VolumeType": "io2", "BlockDeviceMapping.4.DeviceName": undefined },
    },
  },
  "dataVolumes, of a snapshot": {
    config: { dataVolumes: [{ snapshotId: "snap-0a1b2c3d4e5f60001" }], encryptRootDisk: false },
    sends: {
      "BlockDeviceMapping.2.Ebs.SnapshotId": "snap-0a1b2c3d4e5f60001",
      "BlockDeviceMapping.2.Ebs.VolumeSize": undefined,
      "BlockDeviceMapping.2.Ebs.Encrypted": undefined,
    },
  },
  "externalSubnets, externalSecurityGroups": {
    config: {
      subnets: ["subnet-0a1b2c3d4e5f6000a", "subnet-0a1b2c3d4e5f6000b"],
      externalSubnets: ["subnet-0a1b2c3d4e5f6000b"],
      externalSecurityGroups: ["sg-0a1b2c3d4e5f60002"],
    },
    sends: {
      ...{ [`${NIC}.SubnetId`]: "subnet-0a1b2c3d4e5f6000b", [`${NIC}.AssociatePublicIpAddress`]: undefined },
      ...{ "NetworkInterface.2.DeviceIndex": "1", "NetworkInterface.2.SubnetId": "subnet-0a1b2c3d4e5f6000b" },
      ...{ "NetworkInterface.2.SecurityGroupId.1": "sg-0a1b2c3d4e5f60002" },
      ...{ "NetworkInterface.2.DeleteOnTermination": "true" },
    },
  },
  publicIp: { config: {}, sends: { [`${NIC}.AssociatePublicIpAddress`]: "false" } },
  "publicIp, on": { config: { publicIp: true }, sends: { [`${NIC}.AssociatePublicIpAddress`]: "true" } },
  keyName: { config: { keyName: "operator" }, sends: { KeyName: "operator" } },
  "keyName, not given": { config: {}, sends: { KeyName: undefined } },
  instanceProfile: { config: { instanceProfile: "pods" }, sends: { "IamInstanceProfile.Name": "pods" } },
  metadataHopLimit: {
    config: { metadataHopLimit: 2 },
    sends: {
      "MetadataOptions.HttpPutResponseHopLimit": "2",
      "MetadataOptions.HttpTokens": "required",
      "MetadataOptions.HttpEndpoint": "enabled",
      "MetadataOptions.InstanceMetadataTags": "disabled",
    },
  },
  tags: {
    config: { tags: { team: "blue" } },
    sends: {
      "TagSpecification.1.Tag.1.Key": "team",
      "TagSpecification.1.Tag.1.Value": "blue",
      "TagSpecification.2.ResourceType": "volume",
      "TagSpecification.3.ResourceType": "network-interface",
    },
  },
};

describe("requests, held against botocore's model of EC2", { skip: "missing" in boto ? boto.missing : false }, () => {
  for (const [name, { config, spec, sends }] of Object.entries(CASES)) {
    it(`are right with the option ${name}`, async () => {
      if ("missing" in boto) return;
      await using world = await AwsWorld.open(boto.model);
      world.endpoint.account.launchTemplates.push({
        id: "lt-0a1b2c3d4e5f60001",
        name: "kata",
        imageId: "ami-0a1b2c3d4e5f60001",
      });
      const provider = await world.provider(config);
      const { id } = await provider.createInstance(world.spec(spec ?? {}), background());
      const run = world.endpoint.requests.find((r) => r.action === "RunInstances" && r.outcome === undefined);
      for (const [parameter, value] of Object.entries(sends))
        assert.equal(run?.parameters.get(parameter), value, parameter);
      await provider.getInstance(id, background());
      await provider.listInstances("c1", background());
      await provider.consoleOutput(id, 1000, background());
      await provider.verify(background());
      await provider.deleteInstance(id, background());
      assert.deepEqual(world.endpoint.replyProblems, []);
      const refused = world.endpoint.requests.filter((r) => r.outcome !== undefined);
      const expected = ["DryRunOperation", "InvalidInstanceID.NotFound"]; // of verify
      assert.deepEqual(
        refused.filter((r) => !expected.includes(r.outcome ?? "")),
        [],
      );
      assert.deepEqual(world.endpoint.account.leftovers(), []);
    });
  }
});
