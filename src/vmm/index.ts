export { type BootImage, loadBootImage } from "./boot-image.ts";
export { type KvmVerdict, probeKvm, type QemuDeps, QemuVmm, readConsole } from "./qemu/index.ts";
export { type TapVerdict, VmNetwork } from "./vm-network.ts";
export type { TapNetwork, Vmm, VmmHandle, VmmSpec } from "./vmm.ts";
