import { createHash } from "node:crypto";
import type {
  BlockDeviceMapping,
  EbsBlockDevice,
  RunInstancesCommandInput,
  TagSpecification,
} from "@aws-sdk/client-ec2";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceClass } from "../../src/provider/index.ts";
import { type Candidate, candidateKey } from "./candidates.ts";
import { type AwsConfig, DATA_DEVICES } from "./config.ts";
import type { PodVmImage } from "./images.ts";
import { toEc2Tags } from "./tags.ts";

/** Bytes before base64. Source: EC2 user guide, "Run commands when you launch an EC2 instance with user data input". */
export const USER_DATA_LIMIT_BYTES = 16_384;
/** Source: EC2 developer guide, "Ensuring idempotency in Amazon EC2 API requests". */
const TOKEN_LIMIT = 64;

/**
 * At least one instance, so that EC2 makes as many as it has. The same spec, candidate, count and configuration give
 * the same input: EC2 then answers a repeated request with the first instances.
 */
export function launchInput(
  spec: InstanceClass,
  candidate: Candidate,
  image: PodVmImage | undefined,
  config: AwsConfig,
  maxCount = 1,
): RunInstancesCommandInput {
  checkUserData(spec);
  return {
    ...{
      MinCount: 1,
      MaxCount: maxCount,
      InstanceType: candidate.type as NonNullable<RunInstancesCommandInput["InstanceType"]>,
    },
    ClientToken: clientToken(spec.tags.createOperation, candidate),
    UserData: Buffer.from(spec.userData).toString("base64"),
    TagSpecifications: tagSpecifications(spec, candidate, config),
    // A VM that shuts itself down must not stay behind, stopped and paid for.
    InstanceInitiatedShutdownBehavior: "terminate",
    MetadataOptions: {
      ...{ HttpEndpoint: "enabled", HttpTokens: "required", InstanceMetadataTags: "disabled" },
      HttpPutResponseHopLimit: config.metadataHopLimit,
    },
    ...(image === undefined
      ? {}
      : { ImageId: image.id, BlockDeviceMappings: [...disks(spec, image, config), ...dataVolumes(image, config)] }),
    ...network(candidate, config),
    ...placement(config),
    ...(config.tee === "sev-snp" ? { CpuOptions: { AmdSevSnp: "enabled" } } : {}),
    ...(candidate.market === "spot" ? spot(config) : {}),
    ...(config.keyName === undefined ? {} : { KeyName: config.keyName }),
    ...(config.instanceProfile === undefined ? {} : { IamInstanceProfile: { Name: config.instanceProfile } }),
    ...template(config),
  };
}

/**
 * The create operation with what makes the candidate: two candidates have two tokens, whichever is tried first. What
 * else may change (the newest image, the configured tags) is not in it, so EC2 sees and refuses a changed repetition.
 */
export function clientToken(createOperation: string, candidate: Candidate): string {
  const suffix = createHash("sha256").update(candidateKey(candidate)).digest("hex").slice(0, 8);
  const token = `${createOperation}-${suffix}`;
  const plain = token.length <= TOKEN_LIMIT && /^[\x21-\x7e]+$/.test(token);
  return plain ? token : createHash("sha256").update(token).digest("hex");
}

function checkUserData({ userData, name }: InstanceClass): void {
  if (userData.byteLength <= USER_DATA_LIMIT_BYTES) return;
  const message = `user-data has ${userData.byteLength} bytes, EC2 takes at most ${USER_DATA_LIMIT_BYTES}`;
  throw new Fault("invalid_argument", message, { provider: "aws", name });
}

function tagSpecifications(spec: InstanceClass, { market }: Candidate, config: AwsConfig): TagSpecification[] {
  const Tags = toEc2Tags(spec.name, spec.tags, config.tags);
  const kinds = ["instance", "volume", "network-interface", ...(market === "spot" ? ["spot-instances-request"] : [])];
  return kinds.map((kind) => ({ ResourceType: kind as NonNullable<TagSpecification["ResourceType"]>, Tags }));
}

/** Every disk of the image goes with the VM, also one that the image would leave behind. */
function disks(spec: InstanceClass, image: PodVmImage, config: AwsConfig): BlockDeviceMapping[] {
  const root = {
    VolumeSize: Math.max(image.rootDiskGiB, spec.rootDiskGiB ?? config.rootDiskGiB ?? 0),
    VolumeType: config.rootDiskType,
    ...(config.rootDiskIops === undefined ? {} : { Iops: config.rootDiskIops }),
    ...(config.rootDiskThroughputMiBps === undefined ? {} : { Throughput: config.rootDiskThroughputMiBps }),
  };
  return image.devices.map((DeviceName) => ({
    DeviceName,
    Ebs: {
      DeleteOnTermination: true,
      ...encryption(config),
      ...(DeviceName === image.rootDevice ? root : {}),
    },
  }));
}

/** Not written when off: an encrypted snapshot gives an encrypted volume whatever is asked for. */
function encryption({ encryptRootDisk, kmsKeyId }: AwsConfig): EbsBlockDevice {
  if (!encryptRootDisk) return {};
  return { Encrypted: true, ...(kmsKeyId === undefined ? {} : { KmsKeyId: kmsKeyId }) };
}

/** Volumes beside the image's, at names that it does not use. */
function dataVolumes(image: PodVmImage, config: AwsConfig): BlockDeviceMapping[] {
  const free = DATA_DEVICES.filter((name) => !image.devices.includes(name));
  if (free.length < config.dataVolumes.length) {
    const message = `image ${image.id} leaves ${free.length} device names for ${config.dataVolumes.length} of providers.aws.dataVolumes`;
    throw new Fault("invalid_argument", message, { provider: "aws" });
  }
  return config.dataVolumes.map(({ sizeGiB, snapshotId, type, iops, throughputMiBps }, i) => ({
    DeviceName: free[i],
    Ebs: {
      ...{ DeleteOnTermination: true, VolumeType: type, ...encryption(config) },
      ...(sizeGiB === undefined ? {} : { VolumeSize: sizeGiB }),
      ...(snapshotId === undefined ? {} : { SnapshotId: snapshotId }),
      ...(iops === undefined ? {} : { Iops: iops }),
      ...(throughputMiBps === undefined ? {} : { Throughput: throughputMiBps }),
    },
  }));
}

function network({ place }: Candidate, config: AwsConfig): Partial<RunInstancesCommandInput> {
  const { securityGroups, externalSecurityGroups, publicIp } = config;
  if (place === undefined) return securityGroups.length === 0 ? {} : { SecurityGroupIds: [...securityGroups] };
  const { subnetId, externalSubnetId } = place;
  const primary = {
    ...{ DeviceIndex: 0, SubnetId: subnetId, DeleteOnTermination: true },
    ...(securityGroups.length === 0 ? {} : { Groups: [...securityGroups] }),
  };
  if (externalSubnetId === undefined) {
    // Always said: a subnet's own setting may be to give one. With two interfaces there is none.
    return { NetworkInterfaces: [{ ...primary, AssociatePublicIpAddress: publicIp }] };
  }
  const external = {
    ...{ DeviceIndex: 1, SubnetId: externalSubnetId, DeleteOnTermination: true },
    ...(externalSecurityGroups.length === 0 ? {} : { Groups: [...externalSecurityGroups] }),
  };
  return { NetworkInterfaces: [primary, external] };
}

function placement(config: AwsConfig): Partial<RunInstancesCommandInput> {
  const { tenancy, placementGroup, hostId, hostResourceGroupArn } = config;
  const chosen = {
    ...(tenancy === "default" ? {} : { Tenancy: tenancy }),
    ...(placementGroup === undefined ? {} : { GroupName: placementGroup }),
    ...(hostId === undefined ? {} : { HostId: hostId }),
    ...(hostResourceGroupArn === undefined ? {} : { HostResourceGroupArn: hostResourceGroupArn }),
  };
  return Object.keys(chosen).length === 0 ? {} : { Placement: chosen };
}

function spot({ spotMaxPrice }: AwsConfig): Partial<RunInstancesCommandInput> {
  const price = spotMaxPrice === undefined ? {} : { MaxPrice: spotMaxPrice };
  return {
    InstanceMarketOptions: {
      MarketType: "spot",
      SpotOptions: { SpotInstanceType: "one-time", InstanceInterruptionBehavior: "terminate", ...price },
    },
  };
}

function template({ launchTemplate }: AwsConfig): Partial<RunInstancesCommandInput> {
  if (launchTemplate === undefined) return {};
  const { id, name, version } = launchTemplate;
  return {
    LaunchTemplate: {
      ...(id === undefined ? {} : { LaunchTemplateId: id }),
      ...(name === undefined ? {} : { LaunchTemplateName: name }),
      Version: version,
    },
  };
}
