import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { usableImage } from "./images.ts";
import { allowedTypes, fittingTypes } from "./instance-types.ts";
import type { Launcher } from "./launcher.ts";
import { hourlyPriceUsd, PRICES_AS_OF } from "./prices.ts";
import { failed } from "./verify-failed.ts";
import { networkFindings } from "./verify-network.ts";
import { verifyPermissions } from "./verify-permissions.ts";

export interface VerifyDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly launcher: Launcher;
}

/** What provider aws needs of the account. Reads and dry runs only: nothing is made. */
export async function verifyAccount(deps: VerifyDeps, call: Call): Promise<readonly Finding[]> {
  const credentials = await credentialsFinding(deps);
  // Everything else would fail for the same reason.
  if (credentials.state === "error") return [credentials];
  const findings = await Promise.all([
    imageFinding(deps, call),
    typeFindings(deps, call),
    networkFindings(deps.api, deps.config, call),
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
      {
        subject,
        state: "ok",
        detail: `${types.length} usable or allowed, default ${first.name}${priceText(first.name, config)}`,
      },
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

/** For the operator's estimate. */
function priceText(type: string, { region, tee, market }: AwsConfig): string {
  const price = hourlyPriceUsd(type, region, tee === "sev-snp");
  if (price === undefined) return "";
  return `, ${price.toFixed(4)} USD per hour${market === "on-demand" ? "" : " on demand"} (list price of ${PRICES_AS_OF}, without disks)`;
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

function asPattern(pattern: string): RegExp {
  return new RegExp(
    `^${pattern
      .replace(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", ".*")
      .replaceAll("?", ".")}$`,
  );
}
