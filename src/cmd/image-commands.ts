import type { Command } from "commander";
import type { ImageBuildOptions } from "./image-build.ts";
import type { ImagePublishOptions, PublishPlace } from "./image-publish.ts";

const OUT = "/var/lib/kata-remote/image";

/** Adds `kata-remote image …`. @param signal ends with the process's first signal */
export function addImageCommands(program: Command, signal: () => AbortSignal): void {
  const image = program.command("image").description("the pod VM image");
  image
    .command("build")
    .description("builds the image from Debian packages; unchanged inputs are not built again")
    .option("--out <dir>", "where the files go", OUT)
    .option("--cache <dir>", "downloaded packages and their unpacked tree", "/var/cache/kata-remote/image")
    .option(
      "--format <formats>",
      "disks that a cloud boots through UEFI: raw, qcow2, vhd, separated by commas; " +
        "without it kernel, initrd and disk for a monitor of this host",
    )
    .option("--sign-key <file>", "signs the kernel image for Secure Boot: key, PEM (needs sbsign)")
    .option("--sign-cert <file>", "its certificate, PEM")
    .option("--json", "print what was built as JSON")
    .action(async (options: ImageBuildOptions) => {
      const { imageBuild } = await import("./image-build.ts");
      await imageBuild(options, { signal: signal() });
    });
  const list = (value: string, before: string[]): string[] => [...before, value];
  const place = (command: Command): Command =>
    command
      .option("--config <file>", "TOML of the adaptor: region, tags and the like are taken from it")
      .option(
        "--set <key=value>",
        "setting of the publisher, see providers/<provider>/README.md; repeatable",
        list,
        [],
      );
  place(image.command("publish").description("uploads and registers a disk; the same content is not uploaded again"))
    .argument("<provider>", "aws, azure")
    .option("--dir <dir>", "where image build has put the disks", OUT)
    .option("--file <file>", "a disk of this machine's architecture, instead of one of the directory")
    .option("--name <name>", "what it is called there; default: version and content hash")
    .option("--tee <tee>", "none, sev-snp, tdx; default: as the provider is configured")
    .option("--tag <key=value>", "put on everything that is made; repeatable", list, [])
    .option("--json", "print the image as JSON")
    .action(async (provider: string, options: ImagePublishOptions) => {
      const { imagePublish } = await import("./image-publish.ts");
      await imagePublish(provider, options, { signal: signal() });
    });
  place(image.command("unpublish").description("removes what image publish has made"))
    .argument("<provider>", "aws, azure")
    .argument("<image>", "its id")
    .action(async (provider: string, imageId: string, options: PublishPlace) => {
      const { imageUnpublish } = await import("./image-publish.ts");
      await imageUnpublish(provider, imageId, options, { signal: signal() });
    });
}
