// Usage: node deploy/compose/make-context.ts [--out DIR] [--without-root]
// Makes what docker-compose.yml builds its image from: a Debian root made by debootstrap (needs root and Debian's
// package mirror, no registry), kata-remote, the endpoint that plays EC2, the pod VM image and an OCI image to run.
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { background } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";
import { Fault } from "../../src/base/fault.ts";
import { buildImage, cacheDirectory } from "../ociimages/images.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SUITE = "bookworm";
/** What services run, and kata-remote needs; containerd and runc for the node, QEMU and OVMF for the cloud. */
const PACKAGES = [
  ...["redis-server", "redis-tools", "containerd", "runc", "qemu-system-x86", "qemu-utils", "ovmf", "iproute2"],
  ...["busybox-static", "util-linux", "kmod", "ca-certificates"],
];
const NODE_BANNER =
  'import { createRequire as kataRemoteCreateRequire } from "node:module"; const require = kataRemoteCreateRequire(import.meta.url);';

/** @returns the directory with everything of kata-remote in it */
async function makeHome(home: string): Promise<void> {
  const call = background();
  await mkdir(home, { recursive: true });
  say("building kata-remote");
  await exec(process.execPath, [join(ROOT, "deploy", "build.ts"), "--out", join(home, "dist"), "--with-node"], call);
  say("bundling the EC2 endpoint");
  await build({
    absWorkingDir: ROOT,
    entryPoints: ["test/clouds/ec2/main.ts", "test/clouds/machines/network-process.ts"],
    // Flat: the endpoint starts the other one, which it expects beside it.
    entryNames: "[name]",
    ...{ outdir: join(home, "cloud"), outExtension: { ".js": ".mjs" }, bundle: true, platform: "node", format: "esm" },
    ...{ target: "node24", supported: { using: true }, banner: { js: NODE_BANNER }, logLevel: "warning" },
  });
  const cache = cacheDirectory(process.env);
  say("building the pod VM image");
  const disk = join(cache, "podvm-cloud", "raw");
  const args = ["image", "build", "--format", "raw", "--out", disk, "--cache", join(cache, "podvm-build")];
  await exec(join(home, "dist", "bin", "kata-remote"), args, call);
  await rm(join(home, "image"), { recursive: true, force: true });
  await exec("cp", ["-a", "--sparse=always", "--reflink=auto", disk, join(home, "image")], call);
  await cp((await buildImage("busybox", cache, call)).path, join(home, "busybox.tar"));
  await cp(join(import.meta.dirname, "service.sh"), join(home, "service.sh"));
}

async function makeRoot(target: string): Promise<void> {
  say(`making a Debian root (${SUITE}): some minutes`);
  const folder = await mkdtemp(join(tmpdir(), "compose-root-"));
  try {
    const root = join(folder, "root");
    const options = ["--variant=minbase", `--include=${PACKAGES.join(",")}`];
    await exec("debootstrap", [...options, SUITE, root], background());
    for (const path of ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"])
      await rm(join(root, path), { recursive: true, force: true });
    await exec("tar", ["--numeric-owner", "--xattrs", "-C", root, "-cf", target, "."], background());
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function say(text: string): void {
  process.stderr.write(`make-context: ${text}\n`);
}

try {
  const { values } = parseArgs({
    options: { out: { type: "string" }, "without-root": { type: "boolean", default: false } },
  });
  const out = resolve(values.out ?? join(ROOT, ".cache", "compose"));
  await makeHome(join(out, "kata-remote"));
  if (!values["without-root"]) {
    await makeRoot(join(out, "root.tar"));
    await cp(join(import.meta.dirname, "Dockerfile"), join(out, "Dockerfile"));
  }
  console.log(out);
} catch (e) {
  console.error(`make-context: ${Fault.from(e).fullMessage}`);
  process.exitCode = 1;
}
