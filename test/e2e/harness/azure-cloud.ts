import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { background } from "../../../src/base/call.ts";
import { probeKvm } from "../../../src/vmm/index.ts";
import { ArmWithMachines, installAzureSdk, SEEDED } from "../../clouds/arm/index.ts";
import { buildCloudDisk, CACHE, KATA_REMOTE, VM_IMAGE } from "./images.ts";
import { must } from "./run-command.ts";
import type { TestCloud } from "./test-cloud.ts";

/** An Azure subscription whose VMs are VMs of this host, with the pod VM image published to it by the real command. */
export class AzureCloud implements TestCloud {
  readonly arm: ArmWithMachines;
  readonly env: NodeJS.ProcessEnv;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly #configPath: string;

  private constructor(arm: ArmWithMachines, settings: Readonly<Record<string, unknown>>, configPath: string) {
    const { tenant } = arm.endpoint;
    this.arm = arm;
    this.settings = settings;
    this.#configPath = configPath;
    this.env = {
      AZURE_TENANT_ID: tenant.id,
      AZURE_CLIENT_ID: tenant.application.clientId,
      AZURE_CLIENT_SECRET: tenant.application.secret,
    };
  }

  /** @param folder of the test; everything lives below it */
  static async open(folder: string): Promise<AzureCloud> {
    const disk = await buildCloudDisk("vhd");
    const kvm = await probeKvm(
      {
        kernelPath: join(VM_IMAGE, "vmlinuz"),
        initrdPath: join(VM_IMAGE, "initrd.img"),
        qemuPath: "qemu-system-x86_64",
        cacheDir: CACHE,
      },
      background(),
    );
    const sdk = await installAzureSdk();
    const arm = await ArmWithMachines.open({
      folder: join(folder, "azure"),
      acceleration: kvm.works ? "kvm" : "tcg",
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
      // The command looks at the whole of the adaptor's configuration, which must name an image.
      const before = new AzureCloud(
        arm,
        { ...settings, image: SEEDED.image("kata-remote") },
        join(folder, "publish.toml"),
      );
      const image = await before.#publish(disk);
      return new AzureCloud(arm, { ...settings, image }, before.#configPath);
    } catch (e) {
      await arm[Symbol.asyncDispose]();
      throw e;
    }
  }

  async unpublish(): Promise<void> {
    const args = ["image", "unpublish", "azure", String(this.settings.image), "--config", this.#configPath];
    await must(KATA_REMOTE, args, { env: { ...process.env, ...this.env } });
  }

  async leftovers(): Promise<string[]> {
    const problems = this.arm.endpoint.replyProblems.map((p) => `a reply that Azure could not give: ${p}`);
    return [...(await this.arm.leftovers()), ...problems];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.arm[Symbol.asyncDispose]();
  }

  async #publish(dir: string): Promise<string> {
    writeFileSync(this.#configPath, stringify({ provider: "azure", providers: { azure: this.settings } }));
    const args = [
      "image",
      "publish",
      "azure",
      "--dir",
      dir,
      "--config",
      this.#configPath,
      "--tee",
      "sev-snp",
      "--set",
      "lookMs=100",
      "--json",
    ];
    const printed = await must(KATA_REMOTE, args, { env: { ...process.env, ...this.env }, timeoutMs: 300_000 });
    return (JSON.parse(printed) as { imageId: string }).imageId;
  }
}
