import type { Ec2Account, LaunchTemplate } from "../account.ts";
import { ApiError, notImplemented } from "../api-error.ts";
import type { Subnet } from "../instance.ts";
import type { Params } from "../query.ts";

/** An interface that a launch makes. */
export interface InterfaceRequest {
  readonly subnet: Subnet;
  readonly groups: readonly string[];
  readonly description: string;
  readonly publicAddress: boolean;
  readonly deleteOnTermination: boolean;
}

export interface NetworkRequest {
  readonly subnet: Subnet;
  /** Whether the zone was named by the caller: client tokens then count per zone. */
  readonly zonal: boolean;
  /** The primary first. */
  readonly interfaces: readonly InterfaceRequest[];
}

/** @throws ApiError as EC2 refuses combinations, and what is not there */
export function readNetwork(account: Ec2Account, params: Params, template: LaunchTemplate | undefined): NetworkRequest {
  const asked = params.list("NetworkInterface");
  const subnetId = params.text("SubnetId");
  const groupIds = params.texts("SecurityGroupId");
  if (asked.length > 0 && (subnetId !== undefined || groupIds.length > 0)) {
    const what = subnetId === undefined ? "security groups" : "subnet ID";
    throw new ApiError(
      "InvalidParameterCombination",
      `Network interfaces and an instance-level ${what} may not be specified on the same request`,
    );
  }
  if (asked.length === 0) {
    const subnet = subnetOf(account, subnetId ?? template?.subnetId);
    const groups = checkGroups(account, groupIds.length > 0 ? groupIds : (template?.groups ?? []), subnet);
    const primary = { subnet, groups, description: "", publicAddress: subnet.mapPublicIp, deleteOnTermination: true };
    return { subnet, zonal: (subnetId ?? template?.subnetId) !== undefined, interfaces: [primary] };
  }
  asked.forEach((one, i) => {
    if (one.integer("DeviceIndex") !== i)
      throw new ApiError("InvalidParameterValue", "The network interfaces have device indexes 0, 1 and so on");
  });
  const interfaces = asked.map((one, i) => readInterface(account, one, i === 0 ? template : undefined));
  const [primary] = interfaces;
  if (primary === undefined) throw new ApiError("MissingParameter", "NetworkInterface");
  // Source: EC2 API reference, InstanceNetworkInterfaceSpecification, AssociatePublicIpAddress.
  if (interfaces.length > 1 && asked.some((one) => one.flag("AssociatePublicIpAddress") === true)) {
    throw new ApiError(
      "InvalidParameterCombination",
      "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.",
    );
  }
  if (interfaces.some((n) => n.subnet.zone !== primary.subnet.zone)) {
    throw new ApiError("InvalidParameterCombination", "All network interfaces must be in one Availability Zone");
  }
  return { subnet: primary.subnet, zonal: asked[0]?.text("SubnetId") !== undefined, interfaces };
}

function readInterface(account: Ec2Account, asked: Params, template: LaunchTemplate | undefined): InterfaceRequest {
  if (asked.text("NetworkInterfaceId") !== undefined) throw notImplemented("launching with an interface that exists");
  const subnet = subnetOf(account, asked.text("SubnetId") ?? template?.subnetId);
  const groups = asked.texts("SecurityGroupId");
  return {
    subnet,
    groups: checkGroups(account, groups.length > 0 ? groups : (template?.groups ?? []), subnet),
    description: asked.text("Description") ?? "",
    publicAddress: asked.flag("AssociatePublicIpAddress") ?? subnet.mapPublicIp,
    deleteOnTermination: asked.flag("DeleteOnTermination") ?? true,
  };
}

function subnetOf(account: Ec2Account, named: string | undefined): Subnet {
  const subnet = account.subnets.find((s) => s.id === (named ?? account.subnets[0]?.id));
  if (subnet === undefined) throw new ApiError("InvalidSubnetID.NotFound", `The subnet ID '${named}' does not exist`);
  return subnet;
}

function checkGroups(account: Ec2Account, groups: readonly string[], subnet: Subnet): readonly string[] {
  for (const id of groups) {
    if (!account.groups.some((g) => g.id === id && g.vpcId === subnet.vpcId)) {
      throw new ApiError("InvalidGroup.NotFound", `The security group '${id}' does not exist in VPC '${subnet.vpcId}'`);
    }
  }
  return groups;
}
