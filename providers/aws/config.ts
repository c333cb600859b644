import { type Static, Type } from "typebox";
import { Fault } from "../../src/base/fault.ts";
import { OWN_TAG_PREFIX } from "./tags.ts";

const id = (prefix: string) => Type.String({ pattern: `^${prefix}-[0-9a-f]{8,17}$` });

/** Names /dev/sdf to /dev/sdp are for what is added to an image. Source: EC2 user guide, "Device names for volumes". */
export const DATA_DEVICES: readonly string[] = [..."fghijklmnop"].map((letter) => `/dev/sd${letter}`);
const MAX_DATA_VOLUMES = DATA_DEVICES.length;

/** Configuration of provider aws, `[providers.aws]`. */
export const AwsConfig = Type.Object(
  {
    region: Type.String({ pattern: "^[a-z]{2}(-[a-z]+)+-[0-9]$", description: "SEV-SNP: us-east-2 and eu-west-1" }),
    subnets: Type.Array(id("subnet"), {
      default: [],
      description: "Tried in this order: the second is used when the first one's zone has no capacity",
    }),
    securityGroups: Type.Array(id("sg"), { default: [], description: "Let TCP 15150 in from the nodes" }),
    imageId: Type.Optional(id("ami")),
    imageName: Type.Optional(
      Type.String({ minLength: 3, description: "In place of imageId: the newest whose name matches; * is a wildcard" }),
    ),
    imageOwners: Type.Array(Type.String({ pattern: "^(self|amazon|[0-9]{12})$" }), {
      default: ["self"],
      description: "Whose images imageName may find",
    }),
    images: Type.Array(id("ami"), { default: [], description: "Images that a pod may choose besides the default one" }),
    instanceType: Type.String({
      minLength: 4,
      default: "m6a.large",
      description: "Of a pod that says neither type nor size",
    }),
    instanceTypes: Type.Array(Type.String({ minLength: 2 }), {
      default: [],
      maxItems: 199,
      description:
        "Types that may be used besides instanceType; * is a wildcard. The smallest that fits is tried first",
    }),
    arch: Type.Union([Type.Literal("x86_64"), Type.Literal("arm64")], { default: "x86_64" }),
    tee: Type.Union([Type.Literal("sev-snp"), Type.Literal("none")], {
      default: "sev-snp",
      description: "sev-snp: every VM is a confidential one; types that cannot be are not used",
    }),
    market: Type.Union([Type.Literal("on-demand"), Type.Literal("spot"), Type.Literal("spot-then-on-demand")], {
      default: "on-demand",
    }),
    spotMaxPrice: Type.Optional(Type.String({ pattern: "^[0-9]+(\\.[0-9]+)?$", description: "USD per hour" })),
    launchTemplate: Type.Optional(
      Type.Object(
        {
          id: Type.Optional(id("lt")),
          name: Type.Optional(Type.String({ pattern: "^[a-zA-Z0-9().\\-/_]{3,128}$" })),
          version: Type.String({ minLength: 1, default: "$Default" }),
        },
        { additionalProperties: false, description: "What is configured here wins over the template" },
      ),
    ),
    tenancy: Type.Union([Type.Literal("default"), Type.Literal("dedicated"), Type.Literal("host")], {
      default: "default",
    }),
    placementGroup: Type.Optional(Type.String({ minLength: 1 })),
    hostId: Type.Optional(id("h")),
    hostResourceGroupArn: Type.Optional(Type.String({ pattern: "^arn:" })),
    rootDiskGiB: Type.Optional(Type.Integer({ minimum: 1, maximum: 16_384, description: "At least the image's size" })),
    rootDiskType: Type.Union([Type.Literal("gp3"), Type.Literal("gp2"), Type.Literal("io2")], { default: "gp3" }),
    rootDiskIops: Type.Optional(Type.Integer({ minimum: 100, maximum: 256_000 })),
    rootDiskThroughputMiBps: Type.Optional(Type.Integer({ minimum: 125, maximum: 2000 })),
    encryptRootDisk: Type.Boolean({ default: true }),
    kmsKeyId: Type.Optional(Type.String({ minLength: 1, description: "Key id, alias or ARN; else aws/ebs" })),
    dataVolumes: Type.Array(
      Type.Object(
        {
          sizeGiB: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_536, description: "At least the snapshot's" })),
          snapshotId: Type.Optional(id("snap")),
          type: Type.Union([Type.Literal("gp3"), Type.Literal("gp2"), Type.Literal("io2"), Type.Literal("st1")], {
            default: "gp3",
          }),
          iops: Type.Optional(Type.Integer({ minimum: 100, maximum: 256_000 })),
          throughputMiBps: Type.Optional(Type.Integer({ minimum: 125, maximum: 2000 })),
        },
        { additionalProperties: false },
      ),
      {
        default: [],
        maxItems: MAX_DATA_VOLUMES,
        description: "Volumes that every VM has besides its root disk, made and deleted with it, encrypted as that is",
      },
    ),
    externalSubnets: Type.Array(id("subnet"), {
      default: [],
      description: "Each VM gets a second network interface, in the one of these that is in its zone",
    }),
    externalSecurityGroups: Type.Array(id("sg"), { default: [], description: "Of the second network interface" }),
    publicIp: Type.Boolean({
      default: false,
      description: "Gives VMs a public address, which nodes then use. Never needed inside of one VPC",
    }),
    keyName: Type.Optional(Type.String({ minLength: 1, description: "SSH key pair; none unless asked for" })),
    instanceProfile: Type.Optional(
      Type.String({ minLength: 1, description: "Name of the VM's own role; pods can then use it" }),
    ),
    metadataHopLimit: Type.Integer({
      minimum: 1,
      maximum: 64,
      default: 1,
      description: "1 keeps the metadata service from everything behind the VM's own network stack",
    }),
    tags: Type.Record(Type.String({ minLength: 1, maxLength: 127 }), Type.String({ maxLength: 255 }), {
      default: {},
      description: "Also put on every VM, its disks and network interfaces",
    }),
    endpoint: Type.Optional(Type.String({ pattern: "^https?://", description: "In place of AWS's own, for tests" })),
    maxCandidates: Type.Integer({
      minimum: 1,
      maximum: 100,
      default: 12,
      description: "How many pairs of type and place are tried before a start fails for want of capacity",
    }),
    attempts: Type.Integer({
      minimum: 1,
      maximum: 10,
      default: 4,
      description: "Of one request that is throttled or not answered",
    }),
    requestTimeoutMs: Type.Integer({ minimum: 100, default: 30_000 }),
    coalesceMs: Type.Integer({
      minimum: 0,
      maximum: 5000,
      default: 50,
      description: "Questions about single VMs are gathered this long and asked in one request",
    }),
  },
  { additionalProperties: false },
);
export type AwsConfig = Static<typeof AwsConfig>;

const MAX_TAGS = 40;

/** What a schema cannot say. @throws Fault invalid_argument naming the keys */
export function checkConfig(config: AwsConfig): void {
  const wrong = [
    config.tee === "sev-snp" && config.arch === "arm64" && 'tee "sev-snp" needs arch "x86_64"',
    ...imageProblems(config),
    ...diskProblems(config),
    ...volumeProblems(config),
    ...externalProblems(config),
    ...placementProblems(config),
    ...tagProblems(config),
  ].filter((problem) => typeof problem === "string");
  if (wrong.length > 0) throw new Fault("invalid_argument", `providers.aws: ${wrong.join("; ")}`, { provider: "aws" });
}

function imageProblems(config: AwsConfig): (string | false)[] {
  const { launchTemplate, imageId, imageName, subnets } = config;
  return [
    imageId !== undefined && imageName !== undefined && "imageId and imageName exclude each other",
    launchTemplate === undefined &&
      imageId === undefined &&
      imageName === undefined &&
      "imageId or imageName is missing",
    launchTemplate === undefined && subnets.length === 0 && "subnets is empty",
    launchTemplate !== undefined &&
      (launchTemplate.id === undefined) === (launchTemplate.name === undefined) &&
      "launchTemplate needs either id or name",
  ];
}

function diskProblems(config: AwsConfig): (string | false)[] {
  const { rootDiskGiB, rootDiskType, rootDiskIops, rootDiskThroughputMiBps, kmsKeyId, encryptRootDisk } = config;
  const imageKnown = config.imageId !== undefined || config.imageName !== undefined;
  return [
    !imageKnown &&
      rootDiskGiB !== undefined &&
      "rootDiskGiB needs imageId or imageName: the template's image is not known",
    rootDiskType === "gp2" && rootDiskIops !== undefined && 'rootDiskIops needs rootDiskType "gp3" or "io2"',
    rootDiskType === "io2" && rootDiskIops === undefined && 'rootDiskType "io2" needs rootDiskIops',
    rootDiskType !== "gp3" &&
      rootDiskThroughputMiBps !== undefined &&
      'rootDiskThroughputMiBps needs rootDiskType "gp3"',
    !encryptRootDisk && kmsKeyId !== undefined && "kmsKeyId needs encryptRootDisk",
  ];
}

function volumeProblems({ dataVolumes, imageId, imageName }: AwsConfig): (string | false)[] {
  const imageKnown = imageId !== undefined || imageName !== undefined;
  return [
    !imageKnown &&
      dataVolumes.length > 0 &&
      "dataVolumes needs imageId or imageName: the template's disks are not known",
    ...dataVolumes.flatMap(({ sizeGiB, snapshotId, type, iops, throughputMiBps }, i) => [
      (sizeGiB ?? snapshotId) === undefined && `dataVolumes[${i}] needs sizeGiB or snapshotId`,
      type !== "gp3" && type !== "io2" && iops !== undefined && `dataVolumes[${i}].iops needs type "gp3" or "io2"`,
      type === "io2" && iops === undefined && `dataVolumes[${i}] of type "io2" needs iops`,
      type !== "gp3" && throughputMiBps !== undefined && `dataVolumes[${i}].throughputMiBps needs type "gp3"`,
      type === "st1" &&
        sizeGiB !== undefined &&
        sizeGiB < 125 &&
        `dataVolumes[${i}] of type "st1" has at least 125 GiB`,
    ]),
  ];
}

/** Source: EC2 API reference, InstanceNetworkInterfaceSpecification: a public address comes with a single interface only. */
function externalProblems({
  externalSubnets,
  externalSecurityGroups,
  subnets,
  publicIp,
}: AwsConfig): (string | false)[] {
  const external = externalSubnets.length > 0;
  return [
    external && subnets.length === 0 && "externalSubnets needs subnets",
    external && publicIp && "externalSubnets and publicIp exclude each other",
    !external && externalSecurityGroups.length > 0 && "externalSecurityGroups needs externalSubnets",
  ];
}

function placementProblems(config: AwsConfig): (string | false)[] {
  const { tenancy, market, hostId, hostResourceGroupArn, spotMaxPrice } = config;
  return [
    hostId !== undefined && hostResourceGroupArn !== undefined && "hostId and hostResourceGroupArn exclude each other",
    tenancy !== "host" && (hostId ?? hostResourceGroupArn) !== undefined && 'hostId needs tenancy "host"',
    tenancy === "host" && market !== "on-demand" && 'tenancy "host" needs market "on-demand"',
    market === "on-demand" && spotMaxPrice !== undefined && 'spotMaxPrice needs market "spot"',
  ];
}

function tagProblems(config: AwsConfig): (string | false)[] {
  const keys = Object.keys(config.tags);
  const reserved = keys.filter(
    (k) => k === "Name" || k.startsWith(OWN_TAG_PREFIX) || k.toLowerCase().startsWith("aws:"),
  );
  return [
    keys.length > MAX_TAGS && `tags has ${keys.length} keys, at most ${MAX_TAGS} are possible`,
    reserved.length > 0 && `tags cannot set ${reserved.join(", ")}`,
  ];
}
