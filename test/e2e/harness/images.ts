import { join } from "node:path";
import { buildImage, cacheDirectory } from "../../../deploy/ociimages/images.ts";
import { background } from "../../../src/base/call.ts";
import { probeKvm } from "../../../src/vmm/index.ts";
import { ROOT } from "./containerd.ts";
import { must } from "./run-command.ts";

export const BUSYBOX = "localhost/kata-remote/busybox:1";
export const DEBIAN = "localhost/kata-remote/debian:12";

export const CACHE = cacheDirectory(process.env);
/** Where the pod VM image is; made once, by whoever comes first. */
export const VM_IMAGE = join(CACHE, "podvm");
/** Disks of it for clouds, by format. */
const CLOUD_IMAGES = join(CACHE, "podvm-cloud");
export const KATA_REMOTE = join(ROOT, "dist", "bin", "kata-remote");

/** Archives of the named OCI images. */
export async function ociArchives(names: readonly string[]): Promise<readonly string[]> {
  const built = [];
  for (const name of names) built.push((await buildImage(name, CACHE, background())).path);
  return built;
}

/** Builds the pod VM image; when nothing changed since the last time that takes no time. */
export async function buildVmImage(): Promise<void> {
  const args = ["image", "build", "--out", VM_IMAGE, "--cache", join(CACHE, "podvm-build")];
  await must(KATA_REMOTE, args, { timeoutMs: 900_000 });
}

/** Builds the pod VM image as a disk that a cloud boots, or finds it unchanged. @returns the directory to publish */
export async function buildCloudDisk(format: "raw" | "vhd"): Promise<string> {
  const dir = join(CLOUD_IMAGES, format);
  const args = ["image", "build", "--format", format, "--out", dir, "--cache", join(CACHE, "podvm-build")];
  await must(KATA_REMOTE, args, { timeoutMs: 900_000 });
  return dir;
}

/** How VMs run on this host, as a probe VM of the pod VM image shows it. */
export async function accelerationHere(): Promise<"kvm" | "tcg"> {
  const [kernelPath, initrdPath] = [join(VM_IMAGE, "vmlinuz"), join(VM_IMAGE, "initrd.img")];
  const probe = { kernelPath, initrdPath, qemuPath: "qemu-system-x86_64", cacheDir: CACHE };
  return (await probeKvm(probe, background())).works ? "kvm" : "tcg";
}
