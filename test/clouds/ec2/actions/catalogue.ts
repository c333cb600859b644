import type { Ec2Account, SecurityGroup } from "../account.ts";
import { ApiError } from "../api-error.ts";
import type { Subnet } from "../instance.ts";
import type { InstanceType } from "../instance-types.ts";
import { applyFilters, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import { type Action, refuseMissing } from "./action.ts";

export const describeInstanceTypes: Action = ({ account, params }) => {
  const names = params.texts("InstanceType");
  const missing = names.filter((n) => !account.types.some((t) => t.name === n));
  if (missing.length > 0) {
    throw new ApiError(
      "InvalidInstanceType",
      `The following supplied instance types do not exist: [${missing.join(", ")}]`,
    );
  }
  if (names.length > 0 && params.text("MaxResults") !== undefined) {
    throw new ApiError(
      "InvalidParameterCombination",
      "The parameter InstanceTypes cannot be used with the parameter MaxResults",
    );
  }
  const asked = names.length === 0 ? account.types : account.types.filter((t) => names.includes(t.name));
  const matching = applyFilters(asked, params.list("Filter"), {
    "instance-type": (t) => [t.name],
    "processor-info.supported-features": (t) => (t.sevSnp ? ["amd-sev-snp"] : []),
    "processor-info.supported-architecture": (t) => [t.arch],
    "bare-metal": () => ["false"],
    "current-generation": () => ["true"],
  });
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 100 });
  return { instanceTypeSet: items.map(renderType), nextToken };
};

function renderType(t: InstanceType): XmlObject {
  const gpuInfo =
    t.gpu === undefined
      ? undefined
      : {
          gpus: [
            {
              name: t.gpu.name,
              manufacturer: "NVIDIA",
              count: t.gpu.count,
              memoryInfo: { sizeInMiB: t.gpu.memoryMiB },
            },
          ],
          totalGpuMemoryInMiB: t.gpu.count * t.gpu.memoryMiB,
        };
  return {
    ...{ instanceType: t.name, currentGeneration: true, bareMetal: false, hypervisor: "nitro" },
    supportedUsageClasses: ["on-demand", "spot"],
    supportedRootDeviceTypes: ["ebs"],
    processorInfo: { supportedArchitectures: [t.arch], supportedFeatures: t.sevSnp ? ["amd-sev-snp"] : undefined },
    vCpuInfo: { defaultVCpus: t.vcpus, defaultCores: Math.max(1, t.vcpus / 2), defaultThreadsPerCore: 2 },
    memoryInfo: { sizeInMiB: t.memoryMiB },
    gpuInfo,
    supportedBootModes: t.arch === "arm64" ? ["uefi"] : ["legacy-bios", "uefi"],
  };
}

export const describeInstanceTypeOfferings: Action = ({ account, params }) => {
  if (params.text("LocationType") !== "availability-zone") {
    throw new ApiError("InvalidParameterValue", "this endpoint lists offerings by availability-zone only");
  }
  const all = account.subnets.flatMap(({ zone }) => account.types.map(({ name }) => ({ zone, name })));
  const offered = all.filter(({ zone, name }) => !account.notOffered.has(`${name}/${zone}`));
  const matching = applyFilters(offered, params.list("Filter"), {
    "instance-type": (o) => [o.name],
    location: (o) => [o.zone],
  });
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return {
    instanceTypeOfferingSet: items.map((o) => ({
      instanceType: o.name,
      locationType: "availability-zone",
      location: o.zone,
    })),
    nextToken,
  };
};

export const describeSubnets: Action = ({ account, params }) => {
  const ids = params.texts("SubnetId");
  refuseMissing(ids, new Set(account.subnets.map((s) => s.id)), {
    code: "InvalidSubnetID",
    noun: "subnet",
    prefix: "subnet",
  });
  const asked = account.subnets.filter((s) => ids.length === 0 || ids.includes(s.id));
  const matching = applyFilters(asked, params.list("Filter"), {
    "subnet-id": (s) => [s.id],
    "vpc-id": (s) => [s.vpcId],
    "availability-zone": (s) => [s.zone],
  });
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { subnetSet: items.map((s) => renderSubnet(account, s)), nextToken };
};

function renderSubnet(account: Ec2Account, s: Subnet): XmlObject {
  return {
    ...{ subnetId: s.id, state: "available", vpcId: s.vpcId, cidrBlock: `${s.prefix}.0/24`, availabilityZone: s.zone },
    availableIpAddressCount: account.knobs.freeAddresses.get(s.id) ?? 250,
    ...{
      defaultForAz: false,
      mapPublicIpOnLaunch: s.mapPublicIp,
      ownerId: account.ownerId,
      tagSet: tagSet(account, s.id),
    },
  };
}

export const describeSecurityGroups: Action = ({ account, params }) => {
  const ids = params.texts("GroupId");
  const missing = ids.find((id) => !account.groups.some((g) => g.id === id));
  if (missing !== undefined)
    throw new ApiError("InvalidGroup.NotFound", `The security group '${missing}' does not exist`);
  const asked = account.groups.filter((g) => ids.length === 0 || ids.includes(g.id));
  const matching = applyFilters(asked, params.list("Filter"), {
    "group-id": (g) => [g.id],
    "vpc-id": (g) => [g.vpcId],
  });
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  return { securityGroupInfo: items.map((g) => renderGroup(account, g)), nextToken };
};

function renderGroup(account: Ec2Account, g: SecurityGroup): XmlObject {
  const open = { ipProtocol: "-1", groups: [], ipRanges: [{ cidrIp: "0.0.0.0/0" }], ipv6Ranges: [], prefixListIds: [] };
  return {
    ...{ ownerId: account.ownerId, groupId: g.id, groupName: g.id, groupDescription: "for tests", vpcId: g.vpcId },
    ipPermissions: g.ingress.map((r) => ({
      ...{ ipProtocol: r.protocol, fromPort: r.from, toPort: r.to, ipv6Ranges: [], prefixListIds: [] },
      groups: r.group === undefined ? [] : [{ userId: account.ownerId, groupId: r.group }],
      ipRanges: r.cidr === undefined ? [] : [{ cidrIp: r.cidr }],
    })),
    ipPermissionsEgress: [open],
    tagSet: tagSet(account, g.id),
  };
}

export const describeKeyPairs: Action = ({ account, params }) => {
  const names = params.texts("KeyName");
  const missing = names.find((n) => !account.keyPairs.has(n));
  if (missing !== undefined) throw new ApiError("InvalidKeyPair.NotFound", `The key pair '${missing}' does not exist`);
  const found = [...account.keyPairs].filter((n) => names.length === 0 || names.includes(n));
  return { keySet: found.map((keyName) => ({ keyName, keyType: "ed25519" })) };
};

export const describeLaunchTemplateVersions: Action = ({ account, params }) => {
  const [id, name] = [params.text("LaunchTemplateId"), params.text("LaunchTemplateName")];
  params.texts("LaunchTemplateVersion");
  const found = account.launchTemplates.find((t) => t.id === id || t.name === name);
  if (found === undefined) {
    const code = id === undefined ? "InvalidLaunchTemplateName.NotFoundException" : "InvalidLaunchTemplateId.NotFound";
    throw new ApiError(code, `The specified launch template, ${id ?? name}, does not exist.`);
  }
  const ebs = { deleteOnTermination: found.deleteOnTermination };
  const launchTemplateData = {
    ...{ imageId: found.imageId, instanceType: found.instanceType },
    blockDeviceMappingSet: found.deleteOnTermination === undefined ? [] : [{ deviceName: "/dev/xvda", ebs }],
  };
  const version = {
    launchTemplateId: found.id,
    launchTemplateName: found.name,
    versionNumber: 1,
    defaultVersion: true,
  };
  return { launchTemplateVersionSet: [{ ...version, launchTemplateData }] };
};

/** Tags of what has none of its own, as replies show them. */
export function tagSet(account: Ec2Account, id: string): XmlObject[] {
  return [...(account.otherTags.get(id) ?? [])].map(([key, value]) => ({ key, value }));
}
