import { join } from "node:path";
import { ROOT } from "../e2e/harness/containerd.ts";
import { CACHE } from "../e2e/harness/images.ts";
import { must } from "../e2e/harness/run-command.ts";

/** Builds our programs into a folder of this run: nobody replaces them while it runs. @returns the command's script */
export async function buildPrograms(folder: string): Promise<string> {
  const prefix = join(folder, "dist");
  await must(process.execPath, [join(ROOT, "deploy", "build.ts"), "--out", prefix]);
  return join(prefix, "lib", "kata-remote", "kata-remote.mjs");
}

/** Builds the pod VM image with the guest of this build; packages come from the usual cache. @returns its directory */
export async function buildVmImage(program: string, folder: string): Promise<string> {
  const out = join(folder, "podvm");
  const args = [program, "image", "build", "--out", out, "--cache", join(CACHE, "podvm-build")];
  await must(process.execPath, args, { timeoutMs: 900_000 });
  return out;
}
