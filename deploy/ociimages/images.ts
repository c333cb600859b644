import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import { writeArchive } from "./archive.ts";
import { RECIPES } from "./recipes.ts";

export interface BuiltImage {
  readonly reference: string;
  /** OCI archive for `ctr images import`. */
  readonly path: string;
  readonly cached: boolean;
}

/** Where what was downloaded and built is kept: $KATA_REMOTE_CACHE, else ~/.cache/kata-remote. */
export function cacheDirectory(env: NodeJS.ProcessEnv): string {
  return env.KATA_REMOTE_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "kata-remote");
}

/**
 * Makes an image from Debian packages, or finds the one made before from the same packages. No registry is asked.
 * @throws Fault not_found for a name without a recipe
 */
export async function buildImage(name: string, cacheDir: string, call: Call): Promise<BuiltImage> {
  const recipe = RECIPES[name];
  if (recipe === undefined) {
    throw new Fault("not_found", `there is no recipe for image "${name}": ${Object.keys(RECIPES).join(", ")} have one`);
  }
  const key = createHash("sha256")
    .update(JSON.stringify([recipe.reference, recipe.config, await recipe.inputs(call)]))
    .digest("hex")
    .slice(0, 16);
  const folder = join(cacheDir, "ociimages");
  const path = join(folder, `${name}-${key}.tar`);
  if (existsSync(path)) return { reference: recipe.reference, path, cached: true };
  await mkdir(folder, { recursive: true });
  const workDir = await mkdtemp(join(folder, `.${name}-`));
  try {
    const tree = join(workDir, "tree");
    await mkdir(tree, { mode: 0o755 });
    await recipe.makeTree(tree, cacheDir, call);
    await writeArchive({ name: recipe.reference, tree, config: recipe.config, path, workDir }, call);
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
  // Only the newest of each name is kept: older ones were made from packages that are no longer current.
  for (const old of await readdir(folder)) {
    if (old.startsWith(`${name}-`) && old.endsWith(".tar") && old !== `${name}-${key}.tar`) await rm(join(folder, old));
  }
  return { reference: recipe.reference, path, cached: false };
}
