import type { Static } from "typebox";
import { realClock } from "../../../src/base/clock.ts";
import type { ImagePublisher, ProviderDeps, PublisherPlugin } from "../../../src/provider/index.ts";
import { PublishConfig } from "./config.ts";

/** Pod VM images as AMIs. */
export const awsPublisher: PublisherPlugin<typeof PublishConfig> = {
  configSchema: PublishConfig,
  formats: ["raw"],
  permissions: [
    "ebs:StartSnapshot",
    "ebs:PutSnapshotBlock",
    "ebs:CompleteSnapshot",
    "ec2:CreateTags",
    "ec2:DescribeSnapshots",
    "ec2:DeleteSnapshot",
    "ec2:DescribeImages",
    "ec2:RegisterImage",
    "ec2:DeregisterImage",
  ],
  open: openAwsPublisher,
};

async function openAwsPublisher(config: Static<typeof PublishConfig>, deps: ProviderDeps): Promise<ImagePublisher> {
  const [{ openImagesApi }, { AwsPublisher }] = await Promise.all([
    import("./images-api.ts"),
    import("./aws-publisher.ts"),
  ]);
  return new AwsPublisher({ api: await openImagesApi(config, deps.clock ?? realClock), config, log: deps.log });
}
