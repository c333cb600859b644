import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import { LEASE_SCRIPT, NETWORK_SCRIPT } from "./boot-scripts.ts";

export interface RootTreeInput {
  readonly debs: readonly string[];
  readonly nodePath: string;
  readonly koffiPath: string;
}

/** Packages' files that no guest reads; licences stay. */
const UNUSED = [
  "usr/share/man",
  "usr/share/locale",
  "usr/share/info",
  "usr/share/lintian",
  "usr/share/bash-completion",
  "usr/include",
];

/** Drivers for hardware that no VM has. */
const UNUSED_MODULES = ["drivers/comedi", "drivers/hid", "drivers/infiniband", "drivers/target"];

/**
 * Unpacks everything but our own bundle into a directory that appears when it is complete.
 * @throws Fault failed_precondition when this is not root: the files must belong to root
 */
export async function makeRootTree(input: RootTreeInput, target: string, call: Call): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new Fault(
      "failed_precondition",
      "building the pod VM image needs root, as its files must belong to root: use sudo",
    );
  }
  await mkdir(dirname(target), { recursive: true });
  const tree = await mkdtemp(`${target}-`);
  try {
    await chmod(tree, 0o755);
    for (const deb of input.debs) await exec("dpkg-deb", ["-x", deb, tree], call);
    await strip(tree);
    await addFiles(tree, input);
    await exec(join(tree, "bin/busybox"), ["depmod", "-b", tree, await kernelVersion(tree)], call);
    await rm(target, { recursive: true, force: true });
    await rename(tree, target);
  } catch (e) {
    await rm(tree, { recursive: true, force: true });
    throw e;
  }
}

/** Text that changes when what is done here does: part of what a cached tree is known by. */
export function recipe(): string {
  return [makeRootTree, strip, addFiles, executable].map(String).join() + UNUSED.join() + UNUSED_MODULES.join();
}

/** Version of the one kernel in a tree. */
export async function kernelVersion(tree: string): Promise<string> {
  const [version, ...more] = await readdir(join(tree, "lib/modules"));
  if (version === undefined || more.length > 0) {
    throw new Fault(
      "internal",
      `${tree} should have modules of one kernel, it has ${more.length + (version === undefined ? 0 : 1)}`,
    );
  }
  return version;
}

/** Files below lib/modules/<version> of some modules and what they need, in load order. Source: modules.dep */
export async function modulesInOrder(
  tree: string,
  version: string,
  names: readonly string[],
): Promise<readonly string[]> {
  const lines = (await readFile(join(tree, "lib/modules", version, "modules.dep"), "utf8")).split("\n");
  const dependencies = new Map<string, readonly string[]>();
  const files = new Map<string, string>();
  for (const line of lines) {
    const [file, needs] = line.split(":");
    if (file === undefined || needs === undefined) continue;
    dependencies.set(
      file,
      needs.split(" ").filter((n) => n !== ""),
    );
    files.set(
      file
        .replace(/^.*\//, "")
        .replace(/\.ko.*$/, "")
        .replaceAll("-", "_"),
      file,
    );
  }
  const ordered: string[] = [];
  const visit = (file: string): void => {
    if (ordered.includes(file)) return;
    for (const needed of dependencies.get(file) ?? []) visit(needed);
    ordered.push(file);
  };
  for (const name of names) {
    const file = files.get(name);
    if (file !== undefined) visit(file); // else it is built in
  }
  return ordered;
}

async function strip(tree: string): Promise<void> {
  const modules = join(tree, "lib/modules", await kernelVersion(tree), "kernel");
  const paths = [...UNUSED.map((p) => join(tree, p)), ...UNUSED_MODULES.map((p) => join(modules, p))];
  for (const path of paths) await rm(path, { recursive: true, force: true });
  const doc = join(tree, "usr/share/doc");
  for (const entry of await readdir(doc, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && entry.name !== "copyright") await rm(join(entry.parentPath, entry.name));
  }
}

async function addFiles(tree: string, input: RootTreeInput): Promise<void> {
  for (const name of [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "var/lib/kata-remote",
    "opt/kata-remote/node_modules/koffi",
  ]) {
    await mkdir(join(tree, name), { recursive: true });
  }
  await chmod(join(tree, "tmp"), 0o1777);
  await copyFile(input.nodePath, join(tree, "usr/bin/node"));
  await chmod(join(tree, "usr/bin/node"), 0o755);
  const koffi = join(tree, "opt/kata-remote/node_modules/koffi");
  await copyFile(input.koffiPath, join(koffi, "koffi.node"));
  await writeFile(join(koffi, "package.json"), '{ "name": "koffi", "main": "index.cjs" }\n');
  await writeFile(join(koffi, "index.cjs"), 'module.exports = require("./koffi.node");\n');
  await executable(join(tree, "opt/kata-remote/network"), NETWORK_SCRIPT);
  await executable(join(tree, "opt/kata-remote/lease"), LEASE_SCRIPT);
  await mkdir(join(tree, "sbin"), { recursive: true });
  await symlink("/bin/busybox", join(tree, "sbin/modprobe"));
  await symlink("busybox", join(tree, "bin/sh"));
  await writeFile(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
  );
  await writeFile(join(tree, "etc/group"), "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
  await writeFile(join(tree, "etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n");
  await writeFile(join(tree, "etc/resolv.conf"), "");
}

async function executable(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o755);
}
