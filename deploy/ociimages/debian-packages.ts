import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";
import { Fault } from "../../src/base/fault.ts";

/** apt as on a machine that has nothing installed yet, with archives of our own. */
function aptOptions(archives: string): string[] {
  return [
    "-qq",
    "-y",
    "--no-install-recommends",
    "-o",
    "Dir::State::status=/dev/null",
    "-o",
    `Dir::Cache::archives=${archives}`,
    "-o",
    "Debug::NoLocking=1",
    "-o",
    "APT::Sandbox::User=root",
  ];
}

/** What the given packages need, themselves included, as `name_version_arch.deb` in apt's own spelling, sorted. */
export async function listClosure(packages: readonly string[], call: Call): Promise<readonly string[]> {
  const print = (): Promise<string> =>
    exec("apt-get", [...aptOptions("/nowhere"), "--print-uris", "install", ...packages], call).then((r) => r.stdout);
  let uris: string;
  try {
    uris = await print();
  } catch {
    // Package lists that were never fetched, or are too old to name what the archive still has.
    await exec("apt-get", ["update", "-qq"], call);
    uris = await print();
  }
  const names = uris.split("\n").flatMap((line) => / (\S+\.deb) /.exec(line)?.[1] ?? []);
  if (names.length === 0)
    throw new Fault("unavailable", `apt knows no packages for ${packages.join(" ")}: run apt-get update`);
  return names.sort();
}

/** Downloads the closure into `archives` (kept there) and unpacks it into `tree`. Maintainer scripts are not run. */
export async function unpackClosure(
  where: { readonly packages: readonly string[]; readonly archives: string; readonly tree: string },
  call: Call,
): Promise<void> {
  await mkdir(join(where.archives, "partial"), { recursive: true });
  const wanted = new Set(await listClosure(where.packages, call));
  await exec("apt-get", [...aptOptions(where.archives), "--download-only", "install", ...where.packages], call);
  const here = (await readdir(where.archives)).filter((name) => wanted.has(name)).sort();
  if (here.length !== wanted.size) {
    throw new Fault("internal", `apt downloaded ${here.length} of ${wanted.size} packages into ${where.archives}`);
  }
  for (const name of here) await exec("dpkg-deb", ["-x", join(where.archives, name), where.tree], call);
}
