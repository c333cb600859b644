import { access } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Type } from "typebox";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { readIfThere } from "../base/files.ts";
import type { VmmSpec } from "./vmm.ts";

/** What a VM of an image boots from. */
export type BootImage = Pick<VmmSpec, "kernelPath" | "initrdPath" | "imagePath" | "kernelParams" | "lifeSign">;

/** With it begin the lines that every guest of ours prints, at the latest when it listens. Source: src/guestwire, CONSOLE_*. */
const LIFE_SIGN = "kata-remote: ";

const FileName = Type.String({ pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$" });

/** The part of manifest.json that a driver needs; the image builder writes more into it. */
const Manifest = Type.Object({
  kernel: Type.Object({ file: FileName }),
  initrd: Type.Object({ file: FileName }),
  disk: Type.Object({ file: FileName }),
  kernelParams: Type.Array(Type.String()),
});

/**
 * Reads an image directory as `kata-remote image build` makes it.
 * @throws Fault failed_precondition when there is none, or a file of it is missing, with the remedy
 */
export async function loadBootImage(imageDir: string): Promise<BootImage> {
  const dir = resolve(imageDir);
  const path = join(dir, "manifest.json");
  const text = await readIfThere(path);
  if (text === undefined)
    throw new Fault("failed_precondition", `${dir} has no pod VM image: run "kata-remote image build --out ${dir}"`);
  const manifest = parseConfig(Manifest, parseJson(text, path), path);
  const image = {
    kernelPath: join(dir, manifest.kernel.file),
    initrdPath: join(dir, manifest.initrd.file),
    imagePath: join(dir, manifest.disk.file),
    kernelParams: manifest.kernelParams,
    lifeSign: LIFE_SIGN,
  };
  for (const file of [image.kernelPath, image.initrdPath, image.imagePath]) {
    await access(file).catch((cause: unknown) => {
      throw new Fault(
        "failed_precondition",
        `${file} of the pod VM image is missing: run "kata-remote image build --out ${dir}"`,
        {},
        { cause },
      );
    });
  }
  return image;
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Fault("failed_precondition", `${path} is not JSON: build the image again`, {}, { cause });
  }
}
