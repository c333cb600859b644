export { type BootImage, loadBootImage } from "./boot-image.ts";
export { type KvmVerdict, probeKvm, type QemuDeps, QemuVmm, readConsole } from "./qemu/index.ts";
export type { Vmm, VmmHandle, VmmSpec } from "./vmm.ts";
