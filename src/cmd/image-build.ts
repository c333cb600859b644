import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { buildDisks, buildImage, DISK_FORMATS, type DiskFormat } from "../podvmimage/index.ts";

export interface ImageBuildOptions {
  readonly out: string;
  readonly cache: string;
  /** Names of formats, separated by commas. Without it: kernel, initrd and root disk for a monitor of this host. */
  readonly format?: string;
  readonly signKey?: string;
  readonly signCert?: string;
  readonly json?: boolean;
}

/**
 * `kata-remote image build`
 * @throws Fault failed_precondition when run from sources that were not built
 */
export async function imageBuild(options: ImageBuildOptions, call: Call): Promise<void> {
  const formats = parseFormats(options.format);
  const signed = signing(options);
  const library = libraryDir();
  const guestBundleDir = join(library, "guest");
  // Run from the sources there is a folder of that name too, and an image made of it cannot start.
  const bundle = join(guestBundleDir, "guest.mjs");
  if (!existsSync(bundle)) {
    throw new Fault(
      "failed_precondition",
      `${bundle} is missing: run "npm run build", then this command from dist/bin`,
    );
  }
  const say = (text: string): unknown => process.stderr.write(`kata-remote image: ${text}\n`);
  const common = { outDir: options.out, cacheDir: options.cache, guestBundleDir, onProgress: say };
  const built =
    formats.length === 0 ? await buildImage(common, call) : await buildDisks({ ...common, formats, ...signed }, call);
  say(`${options.out} is ${built.rebuilt ? "built" : "up to date"}`);
  if (options.json === true) process.stdout.write(`${JSON.stringify(built, undefined, 2)}\n`);
}

function parseFormats(text: string | undefined): readonly DiskFormat[] {
  return (text?.split(",") ?? []).map((name) => {
    const format = DISK_FORMATS.find((f) => f === name.trim());
    if (format === undefined) {
      throw new Fault("invalid_argument", `--format: "${name}" is not one of ${DISK_FORMATS.join(", ")}`);
    }
    return format;
  });
}

function signing({ signKey, signCert, format }: ImageBuildOptions): {
  readonly signing?: { readonly key: string; readonly cert: string };
} {
  if (signKey === undefined && signCert === undefined) return {};
  if (signKey === undefined || signCert === undefined || format === undefined) {
    throw new Fault("invalid_argument", "--sign-key, --sign-cert and --format go together");
  }
  return { signing: { key: signKey, cert: signCert } };
}

/** lib/kata-remote of the installation: where this bundle stands, or the chunks directory below it. */
function libraryDir(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return existsSync(join(here, "guest")) ? here : dirname(here);
}
