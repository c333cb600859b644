import type { SecurityGroup, Subnet } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import type { Finding } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { failed } from "./verify-failed.ts";

/** Port of the agent tunnel in the guest. Source: peer-pods wire contract §3.6. */
const GUEST_PORT = 15150;
const FEW_ADDRESSES = 20;

/** Subnets, their groups, and the port that nodes dial. */
export async function networkFindings(api: Ec2Api, config: AwsConfig, call: Call): Promise<Finding[]> {
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
  return [
    ...found,
    ...(await externalFindings(config, subnets, api, call)),
    ...(await groupFindings(api, config, vpcs, call)),
  ];
}

/** Whether each subnet's zone has one for the second interface: places without are not used. */
async function externalFindings(
  { externalSubnets }: AwsConfig,
  subnets: readonly Subnet[],
  api: Ec2Api,
  call: Call,
): Promise<Finding[]> {
  if (externalSubnets.length === 0) return [];
  try {
    const external = await api.describeSubnets(externalSubnets, call);
    const zones = new Set(external.map((s) => s.AvailabilityZone));
    const without = subnets.filter((s) => !zones.has(s.AvailabilityZone)).map((s) => s.AvailabilityZone);
    const found = external.map(subnetFinding);
    if (without.length === 0) return found;
    const state = without.length === subnets.length ? "error" : "warning";
    const detail = `${without.join(", ")} has none of externalSubnets: no VM is made there`;
    const remedy = "add subnets of these zones to providers.aws.externalSubnets";
    return [...found, { subject: "external subnets", state, detail, remedy }];
  } catch (e) {
    return [failed("external subnets", e, "correct providers.aws.externalSubnets")];
  }
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
