import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { buildImage } from "../podvmimage/index.ts";

/**
 * `kata-remote image build`
 * @throws Fault failed_precondition when run from sources that were not built
 */
export async function imageBuild(
  options: { readonly out: string; readonly cache: string; readonly json?: boolean },
  call: Call,
): Promise<void> {
  const library = libraryDir();
  const guestBundleDir = join(library, "guest");
  if (!existsSync(guestBundleDir)) {
    throw new Fault(
      "failed_precondition",
      `${guestBundleDir} is missing: run "npm run build", then this command from dist/bin`,
    );
  }
  const image = await buildImage(
    {
      outDir: options.out,
      cacheDir: options.cache,
      guestBundleDir,
      onProgress: (step) => process.stderr.write(`kata-remote image: ${step}\n`),
    },
    call,
  );
  process.stderr.write(`kata-remote image: ${options.out} is ${image.rebuilt ? "built" : "up to date"}\n`);
  if (options.json === true) process.stdout.write(`${JSON.stringify(image, undefined, 2)}\n`);
}

/** lib/kata-remote of the installation: where this bundle stands, or the chunks directory below it. */
function libraryDir(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return existsSync(join(here, "guest")) ? here : dirname(here);
}
