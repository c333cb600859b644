import type { SecurityGroup, Subnet } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import { usableImage } from "./images.ts";
import { allowedTypes, fittingTypes } from "./instance-types.ts";
import type { Launcher } from "./launcher.ts";
import { UNREACHABLE, verifyPermissions } from "./verify-permissions.ts";

export interface VerifyDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly launcher: Launcher;
}

/** Port of the agent tunnel in the guest. Source: peer-pods wire contract §3.6. */
const GUEST_PORT = 15150;
const FEW_ADDRESSES = 20;

/** What provider aws needs of the account. Reads and dry runs only: nothing is made. */
export async function verifyAccount(deps: VerifyDeps, call: Call): Promise<readonly Finding[]> {
  const credentials = await credentialsFinding(deps);
  // Everything else would fail for the same reason.
  if (credentials.state === "error") return [credentials];
  const findings = await Promise.all([
    imageFinding(deps, call),
    typeFindings(deps, call),
    networkFindings(deps, call),
    keyPairFinding(deps, call),
    templateFinding(deps, call),
    verifyPermissions(deps, call),
  ]);
  return [credentials, ...findings.flat(), metadataFinding(deps.config), quotaFinding(deps.config)];
}

async function credentialsFinding({ api, config }: VerifyDeps): Promise<Finding> {
  const subject = "credentials";
  try {
    const id = await api.accessKeyId();
    return { subject, state: "ok", detail: `access key …${id.slice(-4)}, region ${config.region}` };
  } catch (e) {
    const remedy = "give the adaptor a role (EKS Pod Identity, IRSA or an instance profile), or set AWS_ACCESS_KEY_ID";
    return { subject, state: "error", detail: Fault.from(e).fullMessage, remedy };
  }
}

async function imageFinding({ launcher, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "pod VM image";
  if (config.imageId === undefined && config.imageName === undefined) {
    return [{ subject, state: "ok", detail: "left to the launch template" }];
  }
  try {
    const image = await launcher.images.find(config.imageId, call);
    const { rootDiskGiB } = usableImage(image, config);
    const boot = image.BootMode ?? "legacy-bios";
    return [{ subject, state: "ok", detail: `${image.ImageId} "${image.Name}", ${boot}, ${rootDiskGiB} GiB` }];
  } catch (e) {
    return [failed(subject, e, "correct providers.aws.imageId or imageName; kata-remote image build makes an image")];
  }
}

async function typeFindings({ launcher, api, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "instance types";
  try {
    const types = await launcher.types(call);
    const [first] = fittingTypes(types, { vcpus: 0, memoryMiB: 0, gpus: 0 }, config);
    const idle = allowedTypes(config).filter((p) => !types.some((t) => asPattern(p).test(t.name)));
    const found: Finding[] = [
      { subject, state: "ok", detail: `${types.length} usable or allowed, default ${first.name}` },
    ];
    if (idle.length > 0) {
      const detail = `${config.region} has no ${idle.join(", ")}`;
      found.push({ subject, state: "warning", detail, remedy: "correct providers.aws.instanceTypes" });
    }
    if (config.subnets.length > 0) found.push(...(await offeringFindings(api, config, first.name, call)));
    return found;
  } catch (e) {
    const remedy =
      config.tee === "sev-snp"
        ? 'choose an m6a, c6a or r6a type in us-east-2 or eu-west-1, or set providers.aws.tee to "none"'
        : "correct providers.aws.instanceType";
    return [failed(subject, e, remedy)];
  }
}

async function offeringFindings(api: Ec2Api, config: AwsConfig, type: string, call: Call): Promise<Finding[]> {
  const [offerings, subnets] = await Promise.all([
    api.describeOfferings([type], call),
    api.describeSubnets(config.subnets, call),
  ]);
  const zones = new Set(offerings.map((o) => o.Location));
  const without = subnets.filter((s) => !zones.has(s.AvailabilityZone));
  if (without.length === 0) return [];
  const detail = `${type} is not offered in ${without.map((s) => s.AvailabilityZone).join(", ")}`;
  return [{ subject: "zones", state: "warning", detail, remedy: "remove these subnets, or allow another type" }];
}

async function networkFindings({ api, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  let subnets: readonly Subnet[] = [];
  const found: Finding[] = [];
  if (config.subnets.length > 0) {
    try {
      subnets = await api.describeSubnets(config.subnets, call);
      found.push(...subnets.map(subnetFinding));
    } catch (e) {
      found.push(failed("subnets", e, "correct providers.aws.subnets"));
    }
  }
  const vpcs = new Set(subnets.map((s) => s.VpcId));
  if (vpcs.size > 1) {
    const detail = `they are in ${vpcs.size} VPCs, security groups belong to one`;
    found.push({ subject: "subnets", state: "error", detail, remedy: "name subnets of one VPC" });
  }
  return [...found, ...(await groupFindings(api, config, vpcs, call))];
}

function subnetFinding(subnet: Subnet): Finding {
  const subject = `subnet ${subnet.SubnetId}`;
  const free = subnet.AvailableIpAddressCount ?? 0;
  const detail = `${subnet.AvailabilityZone}, ${free} free addresses`;
  if (subnet.State !== "available") {
    return { subject, state: "error", detail: `it is ${subnet.State}`, remedy: "name another subnet" };
  }
  if (free >= FEW_ADDRESSES) return { subject, state: "ok", detail };
  return { subject, state: free === 0 ? "error" : "warning", detail, remedy: "add a subnet to providers.aws.subnets" };
}

async function groupFindings(
  api: Ec2Api,
  config: AwsConfig,
  vpcs: ReadonlySet<string | undefined>,
  call: Call,
): Promise<Finding[]> {
  const subject = "security groups";
  if (config.securityGroups.length === 0) {
    const detail =
      config.launchTemplate === undefined ? "none: the VPC's default group is used" : "left to the launch template";
    const remedy = `name a group that lets TCP ${GUEST_PORT} in from the nodes`;
    return [{ subject, state: config.launchTemplate === undefined ? "warning" : "ok", detail, remedy }];
  }
  try {
    const groups = await api.describeSecurityGroups(config.securityGroups, call);
    const foreign = groups.filter((g) => vpcs.size > 0 && !vpcs.has(g.VpcId));
    const remedy = "name security groups of the subnets' VPC";
    const found: Finding[] = foreign.map((g) => ({
      subject,
      state: "error",
      detail: `${g.GroupId} is in ${g.VpcId}`,
      remedy,
    }));
    return [...found, portFinding(groups)];
  } catch (e) {
    return [failed(subject, e, "correct providers.aws.securityGroups")];
  }
}

function portFinding(groups: readonly SecurityGroup[]): Finding {
  const subject = `TCP ${GUEST_PORT}`;
  const rules = groups
    .flatMap((g) => g.IpPermissions ?? [])
    .filter(
      (p) =>
        p.IpProtocol === "-1" ||
        (p.IpProtocol === "tcp" && (p.FromPort ?? 0) <= GUEST_PORT && (p.ToPort ?? 65_535) >= GUEST_PORT),
    );
  if (rules.length === 0) {
    const group = groups[0]?.GroupId ?? "";
    return {
      ...{ subject, state: "error", detail: "no security group lets the nodes reach the VM" },
      remedy: `aws ec2 authorize-security-group-ingress --group-id ${group} --protocol tcp --port ${GUEST_PORT} --source-group <the nodes' group>`,
    };
  }
  const world = rules.some(
    (p) => p.IpRanges?.some((r) => r.CidrIp === "0.0.0.0/0") || p.Ipv6Ranges?.some((r) => r.CidrIpv6 === "::/0"),
  );
  if (!world) return { subject, state: "ok", detail: "a security group lets it in" };
  return {
    subject,
    state: "warning",
    detail: "it is open to every address",
    remedy: "allow the nodes' security group only",
  };
}

async function keyPairFinding({ api, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "key pair";
  if (config.keyName === undefined) return [];
  try {
    await api.describeKeyPair(config.keyName, call);
    return [{ subject, state: "ok", detail: config.keyName }];
  } catch (e) {
    return [failed(subject, e, "correct providers.aws.keyName, or leave it out")];
  }
}

async function templateFinding({ api, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "launch template";
  if (config.launchTemplate === undefined) return [];
  try {
    const [version] = await api.describeLaunchTemplate(call);
    const data = version?.LaunchTemplateData;
    const kept = data?.BlockDeviceMappings?.filter((m) => m.Ebs?.DeleteOnTermination === false) ?? [];
    const detail = `${version?.LaunchTemplateName} version ${version?.VersionNumber}`;
    if (kept.length === 0) return [{ subject, state: "ok", detail }];
    const remedy = "set DeleteOnTermination in the template, or name the image here";
    const left = kept.map((m) => m.DeviceName).join(", ");
    return [{ subject, state: "warning", detail: `${detail} leaves ${left} behind when a VM ends`, remedy }];
  } catch (e) {
    return [failed(subject, e, "correct providers.aws.launchTemplate; ec2:DescribeLaunchTemplateVersions is needed")];
  }
}

function metadataFinding({ metadataHopLimit, instanceProfile }: AwsConfig): Finding {
  const subject = "instance metadata";
  const detail = `IMDSv2 only, hop limit ${metadataHopLimit}`;
  if (metadataHopLimit === 1) return { subject, state: "ok", detail };
  const reach = instanceProfile === undefined ? "user-data" : `user-data and the credentials of ${instanceProfile}`;
  return {
    subject,
    state: "warning",
    detail: `${detail}: pods can read ${reach}`,
    remedy: "set providers.aws.metadataHopLimit to 1",
  };
}

function quotaFinding({ region }: AwsConfig): Finding {
  const detail = `EC2's API does not tell vCPU quotas: look at "Running On-Demand Standard instances" (L-1216C47A) in ${region}`;
  return { subject: "quota", state: "ok", detail };
}

function failed(subject: string, thrown: unknown, remedy: string): Finding {
  const fault = Fault.from(thrown);
  const detail = fault.fullMessage;
  const kind = kindOf(fault);
  if (kind === "transient") return { subject, state: "error", detail, remedy: UNREACHABLE };
  const permission = `allow ec2:${fault.context.action}: see providers/aws/README.md`;
  return { subject, state: "error", detail, remedy: kind === "auth" ? permission : remedy };
}

function asPattern(pattern: string): RegExp {
  return new RegExp(
    `^${pattern
      .replace(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", ".*")
      .replaceAll("?", ".")}$`,
  );
}
