import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { INITRD_MODULES, initScript } from "./boot-scripts.ts";
import { type CpioEntry, characterDevice, cpioArchive, directory, file } from "./cpio.ts";
import { DISK_MODULES, diskInitScript } from "./disk-init.ts";
import { modulesInOrder } from "./root-tree.ts";

/** Initrd for a VM whose monitor is given kernel and initrd, and whose disk is a virtio device. */
export async function makeInitrd(tree: string, version: string): Promise<Uint8Array> {
  const modules = await modulesInOrder(tree, version, INITRD_MODULES);
  return await archive(tree, version, modules, initScript(namesOf(modules)));
}

/** Initrd of a disk that boots by itself, on whatever machine a cloud has. */
export async function makeDiskInitrd(tree: string, version: string): Promise<Uint8Array> {
  const virtio = await modulesInOrder(tree, version, DISK_MODULES.virtio);
  const hyperv = await modulesInOrder(tree, version, DISK_MODULES.hyperv);
  const script = diskInitScript({ virtio: namesOf(virtio), hyperv: namesOf(hyperv) });
  return await archive(tree, version, [...new Set([...virtio, ...hyperv])], script);
}

async function archive(tree: string, version: string, modules: readonly string[], script: string): Promise<Uint8Array> {
  const entries: CpioEntry[] = [
    ...["bin", "dev", "modules", "proc", "root", "sys"].map(directory),
    // For the shell, once the real /dev has moved to the new root.
    characterDevice("dev/null", 1, 3),
    characterDevice("dev/console", 5, 1),
    file("bin/busybox", await readFile(join(tree, "bin/busybox")), 0o755),
    file("init", script, 0o755),
  ];
  for (const module of modules) {
    entries.push(file(`modules/${basename(module)}`, await readFile(join(tree, "lib/modules", version, module))));
  }
  return cpioArchive(entries);
}

function namesOf(modules: readonly string[]): readonly string[] {
  return modules.map((m) => basename(m));
}
