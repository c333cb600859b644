import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";

export interface DiskInput {
  readonly tree: string;
  readonly guestBundleDir: string;
  readonly target: string;
  readonly sizeMiB: number;
}

/** Fixed, so that equal input gives an equal image. */
const UUID = "6b617461-7265-4d6f-8465-706f64766d31";
const HASH_SEED = "6b617461-7265-4d6f-8465-706f64766d32";
/** Seconds since the epoch of everything that is made here. */
export const SOURCE_DATE_SECONDS = 1_767_225_600;
const SOURCE_DATE = String(SOURCE_DATE_SECONDS);

/**
 * Writes a raw ext4 file system with the tree and the guest's bundle in it. There is no journal: the disk does not
 * outlive its VM, and without one nothing is written twice.
 */
export async function makeDisk(input: DiskInput, call: Call): Promise<void> {
  // Beside the cached tree: hard links do not cross file systems.
  const staging = await mkdtemp(join(dirname(input.tree), "staging-"));
  try {
    const root = join(staging, "root");
    await exec("cp", ["-a", "--link", input.tree, root], call); // hard links: the cached tree is not copied
    await cp(input.guestBundleDir, join(root, "opt/kata-remote"), { recursive: true });
    const args = [
      ...["-q", "-F", "-t", "ext4", "-L", "kata-remote", "-U", UUID, "-m", "0", "-O", "^has_journal"],
      ...["-E", `lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed=${HASH_SEED}`],
      ...["-d", root, input.target, `${input.sizeMiB}M`],
    ];
    const env = { ...process.env, E2FSPROGS_FAKE_TIME: SOURCE_DATE, SOURCE_DATE_EPOCH: SOURCE_DATE, LC_ALL: "C" };
    await exec("mke2fs", args, call, { env });
    const commands = join(staging, "times");
    await writeFile(commands, await fixedTimes(root));
    await exec("debugfs", ["-w", "-f", commands, input.target], call, { env });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

/** debugfs commands that set every time of every file: mke2fs copies them, and the day of the build with them. */
async function fixedTimes(root: string): Promise<string> {
  const entries = await readdir(root, { recursive: true });
  const paths = ["/", ...entries.map((path) => `/${path}`)];
  return paths
    .flatMap((path) =>
      ["atime", "ctime", "mtime"].map((field) => `set_inode_field "${path}" ${field} @${SOURCE_DATE}\n`),
    )
    .join("");
}
