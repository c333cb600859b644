import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT } from "../e2e/harness/containerd.ts";
import { CACHE } from "../e2e/harness/images.ts";
import { must } from "../e2e/harness/run-command.ts";

/** Builds our programs into a folder of this run: nobody replaces them while it runs. @returns the command's script */
export async function buildPrograms(folder: string): Promise<string> {
  const prefix = join(folder, "dist");
  await must(process.execPath, [join(ROOT, "deploy", "build.ts"), "--out", prefix]);
  return join(prefix, "lib", "kata-remote", "kata-remote.mjs");
}

/**
 * A copy of the command that plays the next version of it: it writes records in the form after this one's, as a version
 * that adds fields does. @returns its script
 */
export function makeNextVersion(program: string): string {
  const folder = `${dirname(program)}-next`;
  cpSync(dirname(program), folder, { recursive: true, verbatimSymlinks: true });
  const chunks = join(folder, "chunks");
  let replaced = 0;
  for (const name of readdirSync(chunks).filter((n) => n.endsWith(".mjs"))) {
    const text = readFileSync(join(chunks, name), "utf8");
    const next = text.replace(/^var FORM = (\d+);$/m, (_, form: string) => `var FORM = ${Number(form) + 1};`);
    if (next === text) continue;
    writeFileSync(join(chunks, name), next);
    replaced++;
  }
  if (replaced !== 1) throw new Error(`the form of records is written in ${replaced} places of the build, not in one`);
  return join(folder, "kata-remote.mjs");
}

/** Builds the pod VM image with the guest of this build; packages come from the usual cache. @returns its directory */
export async function buildVmImage(program: string, folder: string): Promise<string> {
  const out = join(folder, "podvm");
  const args = [program, "image", "build", "--out", out, "--cache", join(CACHE, "podvm-build")];
  await must(process.execPath, args, { timeoutMs: 900_000 });
  return out;
}
