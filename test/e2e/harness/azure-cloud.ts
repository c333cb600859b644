import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ArmWithMachines, installAzureSdk, SEEDED } from "../../clouds/arm/index.ts";
import { accelerationHere, buildCloudDisk } from "./images.ts";
import { type PublishPlace, publishImage, unpublishImage } from "./publish-image.ts";
import type { TestCloud } from "./test-cloud.ts";

/** An Azure subscription whose VMs are VMs of this host, with the pod VM image published to it by the real command. */
export class AzureCloud implements TestCloud {
  readonly arm: ArmWithMachines;
  readonly env: NodeJS.ProcessEnv;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly #image: PublishPlace;

  private constructor(arm: ArmWithMachines, settings: Readonly<Record<string, unknown>>, image: PublishPlace) {
    this.arm = arm;
    this.settings = settings;
    this.#image = image;
    this.env = image.env;
  }

  /** @param folder of the test; everything lives below it */
  static async open(folder: string): Promise<AzureCloud> {
    const disk = await buildCloudDisk("vhd");
    const acceleration = await accelerationHere();
    const sdk = await installAzureSdk();
    const arm = await ArmWithMachines.open({
      folder: join(folder, "azure"),
      acceleration,
      ...("missing" in sdk ? {} : { model: sdk.model }),
    });
    try {
      const { cloud, url, certificates } = arm.endpoint;
      const caFile = join(folder, "azure-ca.pem");
      writeFileSync(caFile, certificates.ca);
      const settings = {
        ...{ subscriptionId: cloud.id, resourceGroup: "pods", location: "westeurope", zones: ["1", "2"] },
        ...{ endpoint: url, authorityHost: url, caFile, subnets: [SEEDED.subnet], securityGroup: SEEDED.securityGroup },
      };
      const { tenant } = arm.endpoint;
      const env = {
        AZURE_TENANT_ID: tenant.id,
        AZURE_CLIENT_ID: tenant.application.clientId,
        AZURE_CLIENT_SECRET: tenant.application.secret,
      };
      const place = {
        provider: "azure",
        // The command looks at the whole of the adaptor's configuration, which must name an image.
        settings: { ...settings, image: SEEDED.image("kata-remote") },
        ...{ env, configPath: join(folder, "publish.toml") },
      } as const;
      // For confidential VMs, without being told: the provider's default takes either kind.
      const image = await publishImage(place, disk, ["--set", "lookMs=100"]);
      return new AzureCloud(arm, { ...settings, image }, place);
    } catch (e) {
      await arm[Symbol.asyncDispose]();
      throw e;
    }
  }

  unpublish(): Promise<void> {
    return unpublishImage(this.#image, String(this.settings.image));
  }

  async leftovers(): Promise<string[]> {
    const problems = this.arm.endpoint.replyProblems.map((p) => `a reply that Azure could not give: ${p}`);
    return [...(await this.arm.leftovers()), ...problems];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.arm[Symbol.asyncDispose]();
  }
}
