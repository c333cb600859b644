import type { Static } from "typebox";
import type { Provider, ProviderDeps, ProviderPlugin } from "../../src/provider/index.ts";
import { AwsConfig, checkConfig } from "./config.ts";
import type { Transport } from "./ec2-api.ts";
import { awsPublisher } from "./publish/index.ts";

/** Pod VMs as EC2 instances. */
export const awsProvider: ProviderPlugin<typeof AwsConfig> = {
  name: "aws",
  configSchema: AwsConfig,
  permissions: [
    "ec2:RunInstances",
    "ec2:CreateTags",
    "ec2:TerminateInstances",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeImages",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
    "ec2:GetConsoleOutput",
    "ec2:DescribeVolumes",
    "ec2:AttachVolume",
    "ec2:DetachVolume",
  ],
  publisher: awsPublisher,
  create: openAws,
};

/** @param deps.transport carries the requests in place of HTTP, for a simulation */
export type { Transport } from "./ec2-api.ts";

export async function openAws(
  config: Static<typeof AwsConfig>,
  deps: ProviderDeps & { readonly transport?: Transport },
): Promise<Provider> {
  checkConfig(config);
  const [{ openEc2 }, { AwsProvider }] = await Promise.all([import("./ec2-api.ts"), import("./aws-provider.ts")]);
  return new AwsProvider(config, { ...deps, api: await openEc2(config, deps) });
}
