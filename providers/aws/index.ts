import type { Static } from "typebox";
import type { ProviderPlugin } from "../../src/provider/index.ts";
import { AwsConfig, checkConfig } from "./config.ts";

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
  ],
  create: async (config: Static<typeof AwsConfig>, deps) => {
    checkConfig(config);
    const [{ openEc2 }, { AwsProvider }] = await Promise.all([import("./ec2-api.ts"), import("./aws-provider.ts")]);
    return new AwsProvider(config, { ...deps, api: await openEc2(config) });
  },
};
