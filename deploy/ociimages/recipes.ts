import { chmod, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";
import type { ImageConfig } from "./archive.ts";
import { listClosure, unpackClosure } from "./debian-packages.ts";

/** How to make one image from Debian packages. */
export interface Recipe {
  readonly reference: string;
  readonly config: ImageConfig;
  /** Names everything that decides the content; the cache key. */
  inputs(call: Call): Promise<readonly string[]>;
  makeTree(tree: string, cacheDir: string, call: Call): Promise<void>;
}

const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const BUSYBOX = "/bin/busybox";
const ROOT_FOLDERS = "bin dev etc proc root run sys usr/bin usr/sbin sbin var tmp".split(" ");

/** A small but whole Debian: shell, coreutils, apt, perl, and what looks at files closely. */
const DEBIAN_PACKAGES = [
  "base-files",
  "base-passwd",
  "bash",
  "dash",
  "coreutils",
  "findutils",
  "diffutils",
  "grep",
  "gzip",
  "hostname",
  "login",
  "passwd",
  "mount",
  "perl",
  "procps",
  "sed",
  "tar",
  "util-linux",
  "apt",
  "attr",
  "iproute2",
];

/** Edited when a recipe changes in a way that the list of packages does not show. */
const RECIPE_VERSION = "recipe 1";

const busybox: Recipe = {
  reference: "localhost/kata-remote/busybox:1",
  config: { Cmd: ["/bin/sh"], Env: [PATH], WorkingDir: "/" },
  inputs: busyboxVersion,
  makeTree: (tree, _cacheDir, call) => makeBusyboxTree(tree, call),
};

/** Holds a pod's namespaces open: sleeps, ends at once when asked to, and reaps what the pod leaves behind. */
const pause: Recipe = {
  reference: "localhost/kata-remote/pause:1",
  config: {
    Entrypoint: ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait; done"],
    Env: [PATH],
  },
  inputs: busyboxVersion,
  makeTree: (tree, _cacheDir, call) => makeBusyboxTree(tree, call),
};

const debian: Recipe = {
  reference: "localhost/kata-remote/debian:12",
  config: { Cmd: ["/bin/bash"], Env: [PATH], WorkingDir: "/" },
  inputs: async (call) => [RECIPE_VERSION, ...(await listClosure(DEBIAN_PACKAGES, call))],
  makeTree: async (tree, cacheDir, call) => {
    await unpackClosure({ packages: DEBIAN_PACKAGES, archives: join(cacheDir, "deb"), tree }, call);
    for (const name of ["passwd", "group"]) {
      await copyFile(join(tree, `usr/share/base-passwd/${name}.master`), join(tree, "etc", name));
    }
  },
};

export const RECIPES: Readonly<Record<string, Recipe>> = { busybox, pause, debian };

async function busyboxVersion(call: Call): Promise<readonly string[]> {
  const { stdout } = await exec("dpkg-query", ["-W", "-f", "${Version} ${Architecture}", "busybox-static"], call);
  return [RECIPE_VERSION, `busybox-static ${stdout.trim()}`];
}

async function makeBusyboxTree(tree: string, call: Call): Promise<void> {
  for (const folder of ROOT_FOLDERS) {
    await mkdir(join(tree, folder), { recursive: true, mode: 0o755 });
  }
  await chmod(join(tree, "tmp"), 0o1777);
  await chmod(join(tree, "root"), 0o700);
  await copyFile(BUSYBOX, join(tree, "bin/busybox"));
  await chmod(join(tree, "bin/busybox"), 0o755);
  const applets = (await exec(BUSYBOX, ["--list-full"], call)).stdout.split("\n").filter((path) => path !== "");
  for (const applet of applets) {
    if (applet === "bin/busybox") continue;
    await mkdir(dirname(join(tree, applet)), { recursive: true, mode: 0o755 });
    await symlink("/bin/busybox", join(tree, applet));
  }
  await writeFile(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
  );
  await writeFile(join(tree, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
}
