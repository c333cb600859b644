import { join } from "node:path";
import { Ec2WithMachines, installBoto, TEST_CREDENTIALS } from "../../clouds/ec2/index.ts";
import { accelerationHere, buildCloudDisk } from "./images.ts";
import { type PublishPlace, publishImage, unpublishImage } from "./publish-image.ts";
import type { TestCloud } from "./test-cloud.ts";

const ENV: NodeJS.ProcessEnv = {
  AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
  AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
  AWS_EC2_METADATA_DISABLED: "true",
};

/** An EC2 account whose instances are VMs of this host, with the pod VM image published to it by the real command. */
export class AwsCloud implements TestCloud {
  readonly ec2: Ec2WithMachines;
  readonly env = ENV;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly #image: PublishPlace;

  private constructor(ec2: Ec2WithMachines, settings: Readonly<Record<string, unknown>>, image: PublishPlace) {
    this.ec2 = ec2;
    this.settings = settings;
    this.#image = image;
  }

  /** @param folder of the test; everything lives below it */
  static async open(folder: string): Promise<AwsCloud> {
    const dir = await buildCloudDisk("raw");
    const acceleration = await accelerationHere();
    const boto = await installBoto();
    const ec2 = await Ec2WithMachines.open({
      folder: join(folder, "ec2"),
      acceleration,
      ...("missing" in boto ? {} : { model: boto.model, ebsModel: boto.ebsModel }),
    });
    try {
      const { account, url } = ec2.endpoint;
      const settings = {
        ...{ region: account.region, endpoint: url, subnets: account.subnets.map((s) => s.id) },
        ...{ securityGroups: [account.groups[0]?.id], instanceTypes: ["m6a.*", "c6a.*"] },
      };
      const image = { provider: "aws", settings, env: ENV, configPath: join(folder, "publish.toml") } as const;
      const imageId = await publishImage(image, dir, ["--set", "pollMs=100"]);
      return new AwsCloud(ec2, { ...settings, imageId }, image);
    } catch (e) {
      await ec2[Symbol.asyncDispose]();
      throw e;
    }
  }

  unpublish(): Promise<void> {
    return unpublishImage(this.#image, String(this.settings.imageId));
  }

  async leftovers(): Promise<string[]> {
    const problems = this.ec2.endpoint.replyProblems.map((p) => `a reply that EC2 could not give: ${p}`);
    return [...(await this.ec2.leftovers()), ...problems];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.ec2[Symbol.asyncDispose]();
  }
}
