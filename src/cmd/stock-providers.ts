import type { StockSetting } from "./stock-table.ts";

const TAGS: Omit<StockSetting, "to"> = { flag: "tags", env: "TAGS", type: "map" };
const DISABLE_CVM: Omit<StockSetting, "to"> = {
  flag: "disable-cvm",
  env: "DISABLECVM",
  type: "bool",
  note: 'true is "none"',
};
const PUBLIC_IP: Omit<StockSetting, "to"> = { flag: "use-public-ip", env: "USE_PUBLIC_IP", type: "bool" };
const ROOT_SIZE: Omit<StockSetting, "to"> = {
  flag: "root-volume-size",
  env: "ROOT_VOLUME_SIZE",
  type: "int",
  note: "0 keeps the image's",
};
const SDK = "the cloud's own library reads it";

const AWS: readonly StockSetting[] = [
  { flag: "aws-access-key-id", env: "AWS_ACCESS_KEY_ID", type: "text", to: "env:AWS_ACCESS_KEY_ID" },
  { flag: "aws-secret-key", env: "AWS_SECRET_ACCESS_KEY", type: "text", to: "env:AWS_SECRET_ACCESS_KEY" },
  { flag: "aws-session-token", env: "AWS_SESSION_TOKEN", type: "text", to: "env:AWS_SESSION_TOKEN" },
  { flag: "aws-profile", type: "text", to: "env:AWS_PROFILE" },
  { env: "AWS_ROLE_ARN", type: "text", does: SDK },
  { env: "AWS_WEB_IDENTITY_TOKEN_FILE", type: "text", does: SDK },
  { flag: "aws-region", env: "AWS_REGION", type: "text", to: "adaptor:providers.aws.region" },
  { flag: "instance-type", env: "PODVM_INSTANCE_TYPE", type: "text", to: "adaptor:providers.aws.instanceType" },
  { flag: "instance-types", env: "PODVM_INSTANCE_TYPES", type: "list", to: "adaptor:providers.aws.instanceTypes" },
  { flag: "imageid", env: "PODVM_AMI_ID", type: "text", to: "adaptor:providers.aws.imageId" },
  { flag: "subnetid", env: "AWS_SUBNET_ID", type: "list", to: "adaptor:providers.aws.subnets" },
  { flag: "securitygroupids", env: "AWS_SG_IDS", type: "list", to: "adaptor:providers.aws.securityGroups" },
  { flag: "keyname", env: "SSH_KP_NAME", type: "text", to: "adaptor:providers.aws.keyName" },
  { flag: "use-lt", env: "USE_PODVM_LAUNCHTEMPLATE", type: "bool", does: "has `aws-lt-name` used" },
  {
    ...{ flag: "aws-lt-name", env: "PODVM_LAUNCHTEMPLATE_NAME", type: "text" },
    ...{ to: "adaptor:providers.aws.launchTemplate.name", note: "with use-lt only" },
  },
  { ...PUBLIC_IP, to: "adaptor:providers.aws.publicIp" },
  { ...ROOT_SIZE, to: "adaptor:providers.aws.rootDiskGiB" },
  { ...DISABLE_CVM, to: "adaptor:providers.aws.tee" },
  { ...TAGS, to: "adaptor:providers.aws.tags" },
];

const AZURE: readonly StockSetting[] = [
  { flag: "clientid", env: "AZURE_CLIENT_ID", type: "text", to: "env:AZURE_CLIENT_ID" },
  { flag: "secret", env: "AZURE_CLIENT_SECRET", type: "text", to: "env:AZURE_CLIENT_SECRET" },
  { flag: "tenantid", env: "AZURE_TENANT_ID", type: "text", to: "env:AZURE_TENANT_ID" },
  { env: "AZURE_FEDERATED_TOKEN_FILE", type: "text", does: SDK },
  {
    ...{ flag: "subscriptionid", env: "AZURE_SUBSCRIPTION_ID", type: "text" },
    to: "adaptor:providers.azure.subscriptionId",
  },
  { flag: "region", env: "AZURE_REGION", type: "text", to: "adaptor:providers.azure.location" },
  { flag: "resourcegroup", env: "AZURE_RESOURCE_GROUP", type: "text", to: "adaptor:providers.azure.resourceGroup" },
  { flag: "instance-size", env: "AZURE_INSTANCE_SIZE", type: "text", to: "adaptor:providers.azure.size" },
  { flag: "instance-sizes", env: "AZURE_INSTANCE_SIZES", type: "list", to: "adaptor:providers.azure.sizes" },
  { flag: "zone", type: "text", note: "the stock adaptor does not use it either; providers.azure.zones does that" },
  { flag: "subnetid", env: "AZURE_SUBNET_ID", type: "list", to: "adaptor:providers.azure.subnets" },
  { flag: "securitygroupid", env: "AZURE_NSG_ID", type: "text", to: "adaptor:providers.azure.securityGroup" },
  { flag: "imageid", env: "AZURE_IMAGE_ID", type: "text", to: "adaptor:providers.azure.image" },
  { flag: "ssh-key-path", type: "text", note: "providers.azure.sshPublicKey has the public key itself" },
  { flag: "ssh-username", env: "SSH_USERNAME", type: "text", to: "adaptor:providers.azure.sshUser" },
  { ...DISABLE_CVM, to: "adaptor:providers.azure.tee" },
  { flag: "enable-secure-boot", env: "ENABLE_SECURE_BOOT", type: "bool", to: "adaptor:providers.azure.secureBoot" },
  { ...PUBLIC_IP, to: "adaptor:providers.azure.publicIp" },
  { ...ROOT_SIZE, to: "adaptor:providers.azure.rootDiskGiB" },
  { ...TAGS, to: "adaptor:providers.azure.tags" },
];

/** Those of the providers that are here too. Source: wire contract §2.3 */
export const PROVIDER_SETTINGS: Readonly<Record<string, readonly StockSetting[]>> = { aws: AWS, azure: AZURE };
