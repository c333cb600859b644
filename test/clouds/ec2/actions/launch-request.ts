import type { Ec2Account, Image, LaunchTemplate } from "../account.ts";
import { ApiError, notImplemented } from "../api-error.ts";
import type { Subnet } from "../instance.ts";
import type { InstanceType } from "../instance-types.ts";
import type { Params } from "../query.ts";
import { refuseMissing } from "./action.ts";
import { type InterfaceRequest, readNetwork } from "./network-request.ts";
import { readTagSpecifications } from "./tag-request.ts";
import { type DeviceRequest, readDevices } from "./volume-request.ts";

/** A RunInstances request that was read completely, with everything that it names looked up. */
export interface LaunchRequest {
  readonly count: { readonly min: number; readonly max: number };
  readonly type: InstanceType;
  readonly image: Image;
  readonly subnet: Subnet;
  /** Whether the zone was named by the caller: client tokens then count per zone. */
  readonly zonal: boolean;
  /** The primary first. */
  readonly interfaces: readonly InterfaceRequest[];
  readonly userData: Buffer;
  readonly clientToken: string | undefined;
  readonly keyName: string | undefined;
  readonly spot: boolean;
  readonly sevSnp: boolean;
  readonly tenancy: string;
  readonly devices: readonly DeviceRequest[];
  readonly metadata: {
    readonly tokens: string;
    readonly hopLimit: number;
    readonly endpoint: string;
    readonly tags: string;
  };
  readonly protectedFromTermination: boolean;
  readonly shutdownBehavior: "stop" | "terminate";
  readonly tags: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

const TAGGABLE: ReadonlySet<string> = new Set([
  "instance",
  "volume",
  "network-interface",
  "spot-instances-request",
  "elastic-gpu",
]);
const USER_DATA_LIMIT = 16_384;

/** @throws ApiError as EC2 answers a launch that cannot be: missing things, bad combinations, limits */
export function readLaunchRequest(account: Ec2Account, params: Params): LaunchRequest {
  const template = templateOf(account, params);
  const count = { min: Number(params.need("MinCount")), max: Number(params.need("MaxCount")) };
  if (!(count.min >= 1 && count.max >= count.min)) {
    throw new ApiError("InvalidParameterValue", `Invalid value '${count.max}' for maxCount. Must be at least minCount`);
  }
  const type = typeOf(account, params.text("InstanceType") ?? template?.instanceType ?? "m1.small");
  const image = imageOf(account, params.text("ImageId") ?? template?.imageId);
  if (image.arch !== type.arch) {
    const message = `The architecture '${type.arch}' of the specified instance type does not match the architecture '${image.arch}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.`;
    throw new ApiError("InvalidParameterValue", message);
  }
  const network = readNetwork(account, params, template);
  const clientToken = params.text("ClientToken");
  if (clientToken !== undefined && clientToken.length > 64) {
    throw new ApiError("InvalidParameterValue", "The client token is longer than 64 characters");
  }
  const spot = marketOf(params);
  const behavior = params.text("InstanceInitiatedShutdownBehavior");
  if (spot && behavior === "stop") {
    throw new ApiError(
      "InvalidParameterCombination",
      "Spot instances of type one-time cannot have InstanceInitiatedShutdownBehavior stop",
    );
  }
  const profile = params.child("IamInstanceProfile");
  profile?.text("Name");
  profile?.text("Arn");
  return {
    ...{ count, type, image, ...network, clientToken, spot },
    userData: userDataOf(params),
    keyName: keyOf(account, params),
    sevSnp: cpuOf(params, type, image),
    tenancy: placementOf(account, params),
    devices: readDevices(account, params, image),
    shutdownBehavior: behavior === "terminate" || spot ? "terminate" : "stop",
    metadata: metadataOf(params),
    protectedFromTermination: params.flag("DisableApiTermination") ?? false,
    tags: readTagSpecifications(params, TAGGABLE),
  };
}

function templateOf(account: Ec2Account, params: Params): LaunchTemplate | undefined {
  const asked = params.child("LaunchTemplate");
  if (asked === undefined) return undefined;
  const id = asked.text("LaunchTemplateId");
  const name = asked.text("LaunchTemplateName");
  asked.text("Version");
  if ((id === undefined) === (name === undefined)) {
    throw new ApiError(
      "InvalidParameterCombination",
      "Specify either the launch template ID or the launch template name, not both",
    );
  }
  const found = account.launchTemplates.find((t) => t.id === id || t.name === name);
  if (found !== undefined) return found;
  throw id === undefined
    ? new ApiError(
        "InvalidLaunchTemplateName.NotFoundException",
        `At least one of the launch templates specified in the request does not exist: ${name}`,
      )
    : new ApiError(
        "InvalidLaunchTemplateId.NotFound",
        `The specified launch template, with template ID ${id}, does not exist.`,
      );
}

function typeOf(account: Ec2Account, name: string): InstanceType {
  const type = account.types.find((t) => t.name === name);
  if (type === undefined) throw new ApiError("InvalidParameterValue", `Invalid value '${name}' for InstanceType.`);
  return type;
}

function imageOf(account: Ec2Account, id: string | undefined): Image {
  if (id === undefined) throw new ApiError("MissingParameter", "The request must contain the parameter ImageId");
  if (!/^ami-[0-9a-f]{8,17}$/.test(id))
    throw new ApiError("InvalidAMIID.Malformed", `Invalid id: "${id}" (expecting "ami-...")`);
  const image = account.images.find((i) => i.id === id);
  if (image === undefined) throw new ApiError("InvalidAMIID.NotFound", `The image id '[${id}]' does not exist`);
  if (image.state !== "available")
    throw new ApiError("InvalidAMIID.Unavailable", `The image ID '${id}' is not available`);
  return image;
}

function userDataOf(params: Params): Buffer {
  const text = params.text("UserData") ?? "";
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) {
    throw new ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.");
  }
  const data = Buffer.from(text, "base64");
  if (data.byteLength > USER_DATA_LIMIT) {
    throw new ApiError("InvalidParameterValue", `User data is limited to ${USER_DATA_LIMIT} bytes`);
  }
  return data;
}

function keyOf(account: Ec2Account, params: Params): string | undefined {
  const name = params.text("KeyName");
  if (name === undefined || account.keyPairs.has(name)) return name;
  throw new ApiError("InvalidKeyPair.NotFound", `The key pair '${name}' does not exist`);
}

/** @returns whether the instance is a spot instance */
function marketOf(params: Params): boolean {
  const market = params.child("InstanceMarketOptions");
  if (market === undefined) return false;
  const options = market.child("SpotOptions");
  const [kind, behavior] = [options?.text("SpotInstanceType"), options?.text("InstanceInterruptionBehavior")];
  const price = options?.text("MaxPrice");
  if (price !== undefined && !/^\d+(\.\d+)?$/.test(price)) {
    throw new ApiError("InvalidParameterValue", `Invalid value '${price}' for MaxPrice`);
  }
  if (kind === "persistent") throw notImplemented("persistent spot requests");
  if (behavior !== undefined && behavior !== "terminate") {
    throw new ApiError(
      "InvalidParameterCombination",
      `InstanceInterruptionBehavior ${behavior} needs a persistent spot request`,
    );
  }
  return market.text("MarketType") === "spot";
}

/** @returns whether SEV-SNP is on */
function cpuOf(params: Params, type: InstanceType, image: Image): boolean {
  const cpu = params.child("CpuOptions");
  if (cpu?.text("AmdSevSnp") !== "enabled") return false;
  if (!type.sevSnp) {
    throw new ApiError("InvalidParameterCombination", `The instance type '${type.name}' does not support AMD SEV-SNP`);
  }
  if (image.bootMode === "legacy-bios") {
    throw new ApiError("InvalidParameterCombination", "AMD SEV-SNP needs an AMI with boot mode uefi or uefi-preferred");
  }
  return true;
}

function placementOf(account: Ec2Account, params: Params): string {
  const placement = params.child("Placement");
  const group = placement?.text("GroupName");
  if (group !== undefined && !account.placementGroups.has(group)) {
    throw new ApiError("InvalidPlacementGroup.Unknown", `The Placement Group '${group}' is unknown.`);
  }
  const [host, resourceGroup] = [placement?.text("HostId"), placement?.text("HostResourceGroupArn")];
  const tenancy = placement?.text("Tenancy") ?? "default";
  if ((host ?? resourceGroup) !== undefined && tenancy !== "host") {
    throw new ApiError("InvalidParameterCombination", "A host ID or host resource group needs tenancy host");
  }
  return tenancy;
}

function metadataOf(params: Params): LaunchRequest["metadata"] {
  const options = params.child("MetadataOptions");
  const hopLimit = options?.integer("HttpPutResponseHopLimit") ?? 1;
  if (hopLimit < 1 || hopLimit > 64) {
    throw new ApiError(
      "InvalidParameterValue",
      `Invalid value '${hopLimit}' for HttpPutResponseHopLimit. It is between 1 and 64`,
    );
  }
  const [tokens, endpoint] = [options?.text("HttpTokens") ?? "optional", options?.text("HttpEndpoint") ?? "enabled"];
  return { hopLimit, tokens, endpoint, tags: options?.text("InstanceMetadataTags") ?? "disabled" };
}

/** @throws ApiError InvalidInstanceID.NotFound, .Malformed */
export function refuseMissingInstances(ids: readonly string[], known: ReadonlySet<string>): void {
  refuseMissing(ids, known, { code: "InvalidInstanceID", noun: "instance", prefix: "i" });
}
