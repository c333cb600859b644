import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { background } from "../../../src/base/call.ts";
import { probeKvm } from "../../../src/vmm/index.ts";
import { Ec2WithMachines, installBoto, TEST_CREDENTIALS } from "../../clouds/ec2/index.ts";
import { buildCloudDisk, CACHE, KATA_REMOTE, VM_IMAGE } from "./images.ts";
import { must } from "./run-command.ts";
import type { TestCloud } from "./test-cloud.ts";

/** An EC2 account whose instances are VMs of this host, with the pod VM image published to it by the real command. */
export class AwsCloud implements TestCloud {
  readonly ec2: Ec2WithMachines;
  readonly env: NodeJS.ProcessEnv = {
    AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
    AWS_EC2_METADATA_DISABLED: "true",
  };
  readonly settings: Readonly<Record<string, unknown>>;
  readonly #configPath: string;

  private constructor(ec2: Ec2WithMachines, settings: Readonly<Record<string, unknown>>, configPath: string) {
    this.ec2 = ec2;
    this.settings = settings;
    this.#configPath = configPath;
  }

  /** @param folder of the test; everything lives below it */
  static async open(folder: string): Promise<AwsCloud> {
    const dir = await buildCloudDisk("raw");
    const kvm = await probeKvm(
      {
        kernelPath: join(VM_IMAGE, "vmlinuz"),
        initrdPath: join(VM_IMAGE, "initrd.img"),
        qemuPath: "qemu-system-x86_64",
        cacheDir: CACHE,
      },
      background(),
    );
    const boto = await installBoto();
    const ec2 = await Ec2WithMachines.open({
      folder: join(folder, "ec2"),
      acceleration: kvm.works ? "kvm" : "tcg",
      ...("missing" in boto ? {} : { model: boto.model, ebsModel: boto.ebsModel }),
    });
    try {
      const { account, url } = ec2.endpoint;
      const settings = {
        ...{ region: account.region, endpoint: url, subnets: account.subnets.map((s) => s.id) },
        ...{ securityGroups: [account.groups[0]?.id], instanceTypes: ["m6a.*", "c6a.*"] },
      };
      const cloud = new AwsCloud(ec2, settings, join(folder, "publish.toml"));
      const imageId = await cloud.#publish(dir);
      return new AwsCloud(ec2, { ...settings, imageId }, cloud.#configPath);
    } catch (e) {
      await ec2[Symbol.asyncDispose]();
      throw e;
    }
  }

  async unpublish(): Promise<void> {
    const args = ["image", "unpublish", "aws", String(this.settings.imageId), "--config", this.#configPath];
    await must(KATA_REMOTE, args, { env: { ...process.env, ...this.env } });
  }

  async leftovers(): Promise<string[]> {
    const problems = this.ec2.endpoint.replyProblems.map((p) => `a reply that EC2 could not give: ${p}`);
    return [...(await this.ec2.leftovers()), ...problems];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.ec2[Symbol.asyncDispose]();
  }

  async #publish(dir: string): Promise<string> {
    writeFileSync(this.#configPath, stringify({ provider: "aws", providers: { aws: this.settings } }));
    const args = [
      "image",
      "publish",
      "aws",
      "--dir",
      dir,
      "--config",
      this.#configPath,
      "--set",
      "pollMs=100",
      "--json",
    ];
    const printed = await must(KATA_REMOTE, args, { env: { ...process.env, ...this.env }, timeoutMs: 300_000 });
    return (JSON.parse(printed) as { imageId: string }).imageId;
  }
}
